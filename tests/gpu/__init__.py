"""The proof on a GPU, and how far it is from one: `make gpu`. Rows are measured in four parts and kept in a JSON file.

- `__main__.py`: what is given on the command line; says which packages are missing before anything needs them
- `packages.py`: those that an interpreter lacks
- `command.py`: measures what a file lacks, prints the table, and judges it
- `rows.py`: all rows, in order
- `results.py`: the file: rows by machine, version of torch and commit
- `setting.py`: the device, and the sizes of everything on it
- `networks.py`: the two networks that are measured, small and at 224 pixels
- `running.py`: runs of `onward train`, and measurements in a process of their own
- `child.py`: what such a process does
- `bits.py`: digests over every link; a stage that is killed; the tests that need a device
- `speed.py`: images/s, TFLOP/s and the share of the device's peak
- `plain_loop.py`: the single-process loop that the others are compared with
- `memory.py`: the account against the device's allocator
- `costs.py`: links, feed, augmentation, metrics
- `ahead.py`: batches that are copied to the device beside the steps
- `operations.py`: what ran on the device
- `test_*.py`: tests of these, and of the product on a device (`gpu`)
"""
