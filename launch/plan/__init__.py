"""What a run will need, computed before it starts, without a GPU and without the data.

- `autocast_of_cuda.py`: on a CPU, the casts that autocast makes on CUDA
- `fake_stage.py`: the stages of one process on tensors that have sizes and no memory
- `live_bytes.py`: counts the bytes of all tensors that are alive while code runs, without running its kernels
- `process_memory.py`: what the tensors of one training process take, stage by stage, and the moment at which they take
  most
"""
