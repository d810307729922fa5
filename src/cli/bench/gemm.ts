/** `kindling bench gemm`: times the matrix multiplications of a model's layers. */
import { resolveDevice } from '../../device'
import { settle } from '../../errors'
import { native } from '../../native'
import { availableThreads } from '../../system'
import { median, presetOf, round, type EngineOptions } from './engine'

/**
 * Result for one matrix multiplication: (rows x inputs) by (inputs x outputs), or one of its two
 * gradients.
 */
export interface GemmBenchmark {
  /** The layer, such as `qkv`. */
  name: string
  pass: 'forward' | 'backward_input' | 'backward_weight'
  rows: number
  inputs: number
  outputs: number
  gflops: number
}

export interface GemmBenchmarkOptions extends EngineOptions {
  /** Sequences per batch. Default: the preset's batch size. */
  batch?: number | undefined
  /** Timed runs of each multiplication. */
  steps: number
  /** Runs before the timed ones. */
  warmup: number
}

/**
 * Times the matrix multiplications of each layer of a preset's model on a batch. The output layer
 * is timed on one of the blocks of rows that it works on.
 */
export async function benchGemm(options: GemmBenchmarkOptions): Promise<GemmBenchmark[]> {
  const { d_model: d, d_ff: f, vocab_size: v, batch_size, context } = presetOf(options)
  const device = resolveDevice(options.device)
  const allRows = (options.batch ?? batch_size) * context
  const blockRows = native.outputBlockRows(allRows, d, v, device, options.dtype)
  const layers: [name: string, inputs: number, outputs: number][] = [
    ['qkv', d, 3 * d],
    ['o', d, d],
    ['w1w3', d, 2 * f],
    ['w2', f, d],
    ['output', d, v],
  ]
  const results: GemmBenchmark[] = []
  for (const [name, inputs, outputs] of layers) {
    const rows = name === 'output' ? blockRows : allRows
    for (const pass of ['forward', 'backward_input', 'backward_weight'] as const) {
      const seconds = await settle(() =>
        native.benchGemm({
          rows,
          inputs,
          outputs,
          pass,
          dtype: options.dtype,
          device,
          tf32: options.tf32 ?? false,
          threads: options.threads ?? availableThreads(),
          warmup: options.warmup,
          repeats: options.steps,
        }),
      )
      const gflops = (2 * rows * inputs * outputs) / median(seconds) / 1e9
      results.push({ name, pass, rows, inputs, outputs, gflops: round(gflops, 1) })
    }
  }
  return results
}
