/**
 * Estimates how fast this machine trains from its threads and its instruction set alone, so that
 * the estimate is the same each time. The figures for AVX-512 are those of docs/performance.md; the
 * others follow from the width of the registers.
 */
import { resolveDevice } from '../device'
import { native } from '../native'
import { instructionSet } from '../system'

/** FLOP/s of training on one core, by instruction set. */
const CORE: Readonly<Record<string, number>> = {
  scalar: 3e9,
  avx2: 40e9,
  avx512: 75e9,
  avx512bf16: 105e9,
  amx: 180e9,
}
/** FLOP/s of training assumed for any GPU: that of a small one. */
const GPU = 40e12

/** Estimated training speed of a machine, and what it is based on. */
export interface MachineSpeed {
  flops: number
  dtype: 'f32' | 'bf16'
  /** What the estimate is for: `2 threads of avx512bf16`, or the device. */
  name: string
}

/**
 * Returns the instructions that make bf16 faster than f32 on a device: `avx512bf16`, `amx` or
 * `cuda`; null if f32 is as fast.
 */
export function bf16Speedup(device: string): string | null {
  return resolveDevice(device).startsWith('cuda') ? 'cuda' : native.bf16Instructions()
}

/** Returns the faster precision of a device. */
export function fasterDtype(device: string): 'f32' | 'bf16' {
  return bf16Speedup(device) === null ? 'f32' : 'bf16'
}

/** Estimates the training speed of a device in the given precision, by default the faster one. */
export function machineSpeed(
  device: string,
  threads: number,
  dtype: 'f32' | 'bf16' = fasterDtype(device),
): MachineSpeed {
  const place = resolveDevice(device)
  if (place.startsWith('cuda')) return { flops: GPU, dtype, name: place }
  const instructions = (dtype === 'bf16' ? native.bf16Instructions() : null) ?? instructionSet()
  // Threads beyond two count less: they share the memory bandwidth, and some share a core.
  const busy = threads <= 2 ? threads : 2 + 0.7 * (threads - 2)
  return {
    flops: busy * (CORE[instructions] ?? CORE['scalar']!),
    dtype,
    name: `${threads} thread${threads === 1 ? '' : 's'} of ${instructions}`,
  }
}
