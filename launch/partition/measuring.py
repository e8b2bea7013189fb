from __future__ import annotations
import time, torch
from launch.partition.costs import Costs, LinkCost
from launch.partition.measuring_units import UnitMeasurement
from workers.stage.device_clock import DeviceClock
def measured_costs(config, *, stages=None, seconds=60.0, fresh=False):
    clock=DeviceClock(now=time.thread_time)
    u,e=UnitMeasurement(config,list(stages),torch.device("cpu"),time.monotonic()+seconds,clock).run()
    L=LinkCost(sending=0,receiving=0,message=0,bandwidth=1,latency=0)
    return Costs(device="cpu",estimated=False,batch=config.data.batch_size,units=u,ends=e,within=L,across=L,summing=0,feed=0,memory=0)
