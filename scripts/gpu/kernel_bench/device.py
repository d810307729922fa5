"""Kernels on a device: libcuda's module and launch calls through ctypes, beside PyTorch's context.

CUDA stays loaded by PyTorch. With `emulated`, libcuda is crates/kindling-fake-libcuda and tensors lie in the
host's memory: each launch copies them to the emulated device and back.
"""
import ctypes
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_longlong, c_size_t, c_uint, c_uint64, c_void_p

CTYPES = {"int": c_int, "long long": c_longlong, "float": c_float}
MOST_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
FATBIN = (0xBA55ED50).to_bytes(8, "little")


class Cuda:
    def __init__(self, torch, emulated):
        self.torch, self.emulated = torch, emulated
        self.lib = ctypes.CDLL(emulated or "libcuda.so.1")
        self.lib.cuModuleLoadData.argtypes = [POINTER(c_void_p), c_void_p]
        self.lib.cuModuleGetFunction.argtypes = [POINTER(c_void_p), c_void_p, c_char_p]
        self.lib.cuFuncSetAttribute.argtypes = [c_void_p, c_int, c_int]
        self.lib.cuLaunchKernel.argtypes = [c_void_p, *[c_uint] * 7, c_void_p, c_void_p, c_void_p]
        self.lib.cuGetErrorName.argtypes = [c_int, POINTER(c_char_p)]
        self.images = []
        if emulated:
            self.stream = self.open_emulated()
        else:
            # Makes PyTorch's context current on this thread.
            torch.zeros(1, device="cuda")
            self.stream = torch.cuda.current_stream().cuda_stream

    def open_emulated(self):
        context, stream = c_void_p(), c_void_p()
        self.lib.cuCtxSetCurrent.argtypes = [c_void_p]
        self.lib.cuMemAllocAsync.argtypes = [POINTER(c_uint64), c_size_t, c_void_p]
        self.lib.cuMemFreeAsync.argtypes = [c_uint64, c_void_p]
        self.lib.cuMemcpyHtoDAsync_v2.argtypes = [c_uint64, c_void_p, c_size_t, c_void_p]
        self.lib.cuMemcpyDtoHAsync_v2.argtypes = [c_void_p, c_uint64, c_size_t, c_void_p]
        self.check(self.lib.cuInit(0))
        self.check(self.lib.cuDevicePrimaryCtxRetain(byref(context), 0))
        self.check(self.lib.cuCtxSetCurrent(context))
        self.check(self.lib.cuStreamCreate(byref(stream), 1))
        return stream.value

    def check(self, answer):
        if answer != 0:
            name = c_char_p()
            self.lib.cuGetErrorName(answer, byref(name))
            raise RuntimeError(f"CUDA {answer}: {(name.value or b'').decode()}")

    def load(self, cubin):
        image = ctypes.create_string_buffer(FATBIN if self.emulated else cubin)
        self.images.append(image)
        module = c_void_p()
        self.check(self.lib.cuModuleLoadData(byref(module), ctypes.addressof(image)))
        return module

    def bound(self, module, signature, launch, tensors):
        """A function that queues the launch over these tensors. None is a null pointer."""
        function = c_void_p()
        self.check(self.lib.cuModuleGetFunction(byref(function), module, launch.kernel.encode()))
        if launch.shared_bytes > 48 * 1024:
            self.check(self.lib.cuFuncSetAttribute(function, MOST_DYNAMIC_SHARED, launch.shared_bytes))
        dtypes = {"float*": "float32", "bf16*": "bfloat16", "int*": "int32", "double*": "float64"}
        values, used = [], []
        for parameter in signature.parameters:
            if not parameter.is_pointer:
                values.append(CTYPES[parameter.type](launch.scalars[parameter.name]))
                continue
            tensor = tensors[parameter.name]
            if tensor is not None:
                wanted = getattr(self.torch, dtypes[parameter.type])
                if tensor.dtype != wanted or not tensor.is_contiguous():
                    raise TypeError(f"{launch.kernel}: {parameter.name} is {tensor.dtype}, wanted contiguous {wanted}")
                used.append((len(values), tensor))
            values.append(c_void_p(tensor.data_ptr() if tensor is not None else None))
        pointers = (c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (*launch.grid, launch.block, 1, 1, launch.shared_bytes)

        def queue(keep=(values, used)):
            self.check(self.lib.cuLaunchKernel(function, *sizes, self.stream, pointers, None))

        return (lambda: self.run_emulated(queue, values, used)) if self.emulated else queue

    def run_emulated(self, queue, values, used):
        addresses = {}
        for place, tensor in used:
            host, size = tensor.data_ptr(), tensor.nbytes
            # Parts of one tensor keep their distance.
            whole = tensor.untyped_storage()
            start = whole.data_ptr()
            if start not in addresses:
                address = c_uint64()
                self.check(self.lib.cuMemAllocAsync(byref(address), whole.nbytes(), self.stream))
                self.check(self.lib.cuMemcpyHtoDAsync_v2(address, start, whole.nbytes(), self.stream))
                addresses[start] = (address.value, whole.nbytes())
            assert host + size <= start + whole.nbytes()
            values[place].value = addresses[start][0] + host - start
        queue()
        for start, (address, size) in addresses.items():
            self.check(self.lib.cuMemcpyDtoHAsync_v2(start, address, size, self.stream))
            self.check(self.lib.cuMemFreeAsync(address, self.stream))
        self.check(self.lib.cuStreamSynchronize(c_void_p(self.stream)))
