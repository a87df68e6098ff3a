"""Model files, packed and unpacked: tensors as they lie on disk, the update that they become.

stored     reads .safetensors (also sharded) and .npz, one tensor at a time
written    writes .safetensors and .npz, one tensor at a time
atomic     a file that appears whole or not at all
packing    tensors to an update and back, with what each one cost
"""
