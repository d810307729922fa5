/**
 * Device selection, and the peak FLOP/s of GPUs, against which model FLOPs utilization (MFU) is
 * measured.
 */
import { native } from './native'

/**
 * Resolves `auto` to `cuda` if this build and machine have a CUDA device, else to `cpu`. Other
 * names are returned as they are.
 */
export function resolveDevice(device: string): string {
  if (device !== 'auto') return device
  return native.cudaDeviceCount() > 0 ? 'cuda' : 'cpu'
}

/**
 * Explains why `auto` does not use a GPU that seems to be present; null if it does, or if there is
 * none.
 */
export function unusedGpu(device: string): string | null {
  const problem = device === 'auto' ? native.cudaProblem() : null
  return problem === null ? null : `the GPU is not used, so this runs on the CPU: ${problem}`
}

/** Arithmetic of matrix products; decides which peak applies. */
export interface Arithmetic {
  dtype: 'f32' | 'bf16'
  tf32: boolean
}

/**
 * Dense peaks in TFLOP/s from NVIDIA's data sheets: bf16 with f32 accumulation, TensorFloat-32, and
 * f32 without tensor cores. The longest key that is a prefix of the driver's name applies. Power
 * limits and clocks may lower a machine's own peak.
 */
const PEAKS: Readonly<Record<string, { bf16: number; tf32: number; f32: number }>> = {
  'NVIDIA A40': { bf16: 149.7, tf32: 74.8, f32: 37.4 },
  'NVIDIA A100': { bf16: 312, tf32: 156, f32: 19.5 },
  'NVIDIA B200': { bf16: 2250, tf32: 1100, f32: 80 },
  'NVIDIA H100 80GB HBM3': { bf16: 989.4, tf32: 494.7, f32: 66.9 },
  'NVIDIA H200': { bf16: 989.4, tf32: 494.7, f32: 66.9 },
  'NVIDIA L4': { bf16: 121, tf32: 60, f32: 30.3 },
  'NVIDIA L40': { bf16: 181, tf32: 90.5, f32: 90.5 },
  'NVIDIA L40S': { bf16: 362, tf32: 183, f32: 91.6 },
  'NVIDIA GeForce RTX 4090': { bf16: 165.2, tf32: 82.6, f32: 82.6 },
  'NVIDIA GeForce RTX 5090': { bf16: 209.5, tf32: 104.8, f32: 104.8 },
}

/** Returns the peak of a GPU in TFLOP/s for this arithmetic, or null if it is not in the table. */
export function knownPeak(name: string, { dtype, tf32 }: Arithmetic): number | null {
  // A prefix must end at a word, and some suffixes name another GPU: "Laptop GPU", "4090 D".
  const found = Object.keys(PEAKS)
    .filter(
      (known) =>
        name === known ||
        (name.startsWith(known) &&
          /^(-| (?!Ti|D\b|Laptop|SUPER|NVL|PCIe))/.test(name.slice(known.length))),
    )
    .sort((a, b) => b.length - a.length)[0]
  if (found === undefined) return null
  return PEAKS[found]![dtype === 'bf16' ? 'bf16' : tf32 ? 'tf32' : 'f32']
}

/** Returns the model FLOPs utilization of a training speed, or null if the peak is unknown. */
export function mfuOf(
  flopsPerToken: number,
  tokensPerSecond: number,
  peakTflops: number | null,
): number | null {
  return peakTflops === null ? null : (flopsPerToken * tokensPerSecond) / (peakTflops * 1e12)
}
