/** Shared by the benchmarks of the engine: their options, the model of a preset, medians. */
import { PRESETS, type Preset } from '../../training/presets'
import { Transformer } from '../../transformer'
import type { TransformerOptions } from '../../transformer-options'

/** Options that every benchmark of the engine takes. */
export interface EngineOptions {
  preset: string
  dtype: 'f32' | 'bf16'
  /** `auto`, `cpu`, `cuda` or `cuda:N`. */
  device: string
  tf32?: boolean | undefined
  /** Default: the cores available to this process. */
  threads?: number | undefined
}

export function presetOf({ preset }: EngineOptions): Preset {
  return PRESETS[preset]!
}

/** Builds the model of a preset, with random weights. */
export function buildModel(
  options: EngineOptions,
  overrides: Partial<TransformerOptions> = {},
): Transformer {
  const preset = presetOf(options)
  return new Transformer({
    vocabSize: preset.vocab_size,
    dModel: preset.d_model,
    numHeads: preset.num_heads,
    dFf: preset.d_ff,
    numLayers: preset.num_layers,
    maxSeqLength: preset.context,
    device: options.device,
    dtype: options.dtype,
    tf32: options.tf32 ?? false,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...overrides,
  })
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]!
}

export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
