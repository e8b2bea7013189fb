"""The data sets by name, and how their images are found, read and decoded.

- `arrays.py`: images that have numbers and no files; a data set whose pixels all lie in one array
- `custom.py`: a data set of the user's own: anything with `len()` and `[index]`
- `datasets.py`: the data sets that a configuration can name, behind one small interface: pixels, image, label, name
- `decoding.py`: encoded images to pixels: JPEG by libjpeg-turbo without the detour through PIL, everything else by
  PIL
- `files.py`: the files of a data set: a million names in a few arrays, read whole, one read each
- `folder_walk.py`: lists the image files below a folder in a stable order, and names everything that it skips
- `headers.py`: reads the header of every image file: height and width, or why it is no image
- `idx.py`: IDX, the file format of the MNIST family: a strict reader, so that a broken file is never trained on
- `image_folder.py`: a folder of class folders of image files: what torchvision's `ImageFolder` reads, without torch
- `index.py`: a compact description of a data set, kept with a run so that it is never resumed on other data
- `jpeg_header.py`: parses the first bytes of a JPEG file: size, components, Exif; faster than opening it as an image
- `memory.py`: how much memory is available, checked before a large allocation, which might get the process killed
- `mnist_family.py`: MNIST and the data sets in its format: the folders and names of their files
- `pack_writer.py`: writes a packed copy of a data set, shard by shard; `packed.py` reads it
- `packed.py`: reads a packed copy of a data set: images made small once, in a few large files instead of a million
- `replacement.py`: chooses the image that replaces one that cannot be decoded (`data.on_error: skip`)
- `shared.py`: a data set in an unnamed block of shared memory that worker processes inherit: names, labels and, on
  request, all files
- `torchvision_sets.py`: data sets that torchvision reads: its classes, their arguments, and how the result is read
- `unreadable.py`: finds all files of a data set that cannot be decoded, not only the first
"""
