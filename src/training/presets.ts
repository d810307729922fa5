/** Named model sizes, shared by all commands and by the benchmarks against other libraries. */

/** Sizes of a model and of its batches, by their names in files. */
export interface Preset {
  d_model: number
  num_heads: number
  d_ff: number
  num_layers: number
  vocab_size: number
  /** Context in tokens: both max_seq_length and seq_length. */
  context: number
  batch_size: number
}

type Sizes = readonly [number, number, number, number, number, number, number]

function preset([
  d_model,
  num_heads,
  d_ff,
  num_layers,
  vocab_size,
  context,
  batch_size,
]: Sizes): Preset {
  return { d_model, num_heads, d_ff, num_layers, vocab_size, context, batch_size }
}

/** Presets for training: d_model, num_heads, d_ff, num_layers, vocab_size, context, batch_size. */
export const PRESETS: Readonly<Record<string, Preset>> = {
  char: preset([128, 4, 344, 4, 65, 64, 12]),
  'char-gpu': preset([384, 6, 1024, 6, 65, 256, 64]),
  tinystories: preset([512, 16, 1344, 4, 10_000, 256, 32]),
  seed: preset([512, 8, 1344, 6, 32_000, 256, 32]),
  'gpt2-small-bench': preset([768, 12, 2048, 12, 50_304, 1024, 4]),
  'gpt2-large-bench': preset([1280, 10, 3456, 36, 50_304, 1024, 1]),
}

/** The preset that keeps the defaults, which are the course's. */
export const COURSE = 'course'

/** Shapes for `kindling account` alone: GPT-2's sizes with SwiGLU and d_ff = 4 d_model. */
export const COURSE_SHAPES: Readonly<Record<string, Preset>> = {
  'gpt2-small': preset([768, 12, 3072, 12, 50_257, 1024, 1]),
  'gpt2-medium': preset([1024, 16, 4096, 24, 50_257, 1024, 1]),
  'gpt2-large': preset([1280, 20, 5120, 36, 50_257, 1024, 1]),
  'gpt2-xl': preset([1600, 25, 6400, 48, 50_257, 1024, 1]),
}
