"""A trained backbone as a folder that another library loads: `onward export --to`.

- `card.py`: the model card: what the network is, how its images are prepared, what the run measured, how it is loaded
- `formats.py`: what every format has, and the writing of a folder, whose features are compared before it is done
- `hf_format.py`: a folder for transformers: its own ResNet or ViT, or the wrapper around timm's networks
- `network.py`: the blocks of a run that are to be exported, as one network
- `timm_format.py`: a folder for timm
- `torch_export_format.py`: a program of torch.export, for which no library has to know the network
- `torchvision_format.py`: a folder for torchvision
"""
