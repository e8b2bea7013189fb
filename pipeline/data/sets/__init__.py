"""The data sets by name, and how their images are found, read and decoded.

- `arrays.py`: a data set whose pixels all lie in one array
- `datasets.py`: the data sets that a configuration can name, behind one small interface: pixels, image, label, name
- `decoding.py`: encoded images to pixels: JPEG by libjpeg-turbo without the detour through PIL, everything else by
  PIL
- `files.py`: the files of a data set: a million names in a few arrays, read whole, one read each
- `folder_walk.py`: what lies below a folder: image files in an order that stays, and what is left out, which is
  always named
- `headers.py`: what the header of every image file says: its height and width, and whether it is an image at all
- `idx.py`: IDX, the file format of the MNIST family: a strict reader, so that a broken file is never trained on
- `image_folder.py`: a folder of class folders of image files: what torchvision's `ImageFolder` reads, without torch
- `index.py`: what a data set consists of, small enough to be kept with a run: so that a run is not continued on other
  data
- `jpeg_header.py`: what the first bytes of a JPEG file say: size, components, Exif. Faster than opening it as an
  image
- `memory.py`: how much memory there is, before much of it is taken: what does not fit would end in a killed process
- `mnist_family.py`: MNIST and the data sets that come in its format: where their files lie, and what they are called
- `pack_writer.py`: writes a packed copy of a data set, shard by shard; `packed.py` reads it
- `packed.py`: reads a packed copy of a data set: images made small once, in a few large files instead of a million
- `replacement.py`: which image stands in for one that cannot be decoded (`data.on_error: skip`)
- `shared.py`: a data set in a nameless block of memory that worker processes inherit: names, labels and, if asked,
  all files
- `torchvision_sets.py`: data sets that torchvision reads: which of its classes, with which arguments, and what it
  finds
- `unreadable.py`: which files of a data set are no images that can be decoded, all of them, and not only the first
"""
