/** The options of `Transformer`: their types, and the schema that checks them. */
import { z } from 'zod'
import { limits } from './limits'

/** RoPE scaling, with the names of `rope_scaling` in Hugging Face's config.json. */
export interface RopeScaling {
  /** Divisor of the low frequencies. */
  factor: number
  /** Frequencies with fewer turns than this in the original context are low. */
  lowFreqFactor: number
  /** Frequencies with more turns than this in the original context stay as they are. */
  highFreqFactor: number
  /** The original context, in tokens. */
  originalMaxPositionEmbeddings: number
}

/** Sizes and options of a model. */
export interface TransformerOptions {
  /** Tokens in the vocabulary: the tokenizer's vocabSize, or more as padding. */
  vocabSize: number
  /** Width of the residual stream; a multiple of numHeads, unless headSize is given. */
  dModel: number
  /** Query heads. */
  numHeads: number
  /** Width of the feed-forward layer. */
  dFf: number
  /** Transformer blocks. */
  numLayers: number
  /** Longest context, in tokens. */
  maxSeqLength: number
  /** Base of the rotary position embeddings (RoPE). Default 100000. */
  theta?: number
  /** Key/value heads; a divisor of numHeads. Default numHeads. */
  numKvHeads?: number
  /** Use the embedding matrix as the output layer. Default false. */
  tieEmbeddings?: boolean
  /** Add a bias to the query, key and value projections. Default false. */
  qkvBias?: boolean
  /** Width of each head; an even number. Default dModel / numHeads. */
  headSize?: number
  /** Added to the mean square in every RMSNorm. Default 1e-5. */
  normEps?: number
  /** Apply RMSNorm to the queries and keys of each head, before RoPE. Default false. */
  qkNorm?: boolean
  /** Scale RoPE for longer contexts, as Llama 3.1 does. Default none. */
  ropeScaling?: RopeScaling | null
  /** `cpu`, `cuda`, `cuda:N`, or `auto`: cuda if available, else cpu. Default `cpu`. */
  device?: string
  /** Seed of the initial weights, a non-negative integer. Default 0. */
  seed?: number
  /**
   * Dtype of the operands of matrix products. With `bf16`, sums, weights, norms and losses stay
   * f32. A CPU without AVX512-BF16 or AMX uses f32 instead. Default `f32`.
   */
  dtype?: 'f32' | 'bf16'
  /** Allow TensorFloat-32 for f32 matrix products on cuda. Default false. */
  tf32?: boolean
  /**
   * Threads of the CPU engine. Does not affect results. Default: the cores available to this
   * process.
   */
  threads?: number
  /**
   * Save only the input of each block, and recompute the block's activations in the backward pass.
   * Takes less memory and more time; the gradients are the same bit for bit. Default false.
   */
  recompute?: boolean
  /**
   * Check the output of every op, and stop a pass at the first NaN or infinity, with an error that
   * names the op. Slower, with the same results. The gradients of a stopped pass are incomplete.
   * Default false.
   */
  detectAnomaly?: boolean
}

/** Schema of a size; the engine checks its range, and that the sizes fit together. */
const size = z.int().min(0)
export const transformerSchema = z.strictObject({
  vocabSize: size,
  dModel: size,
  numHeads: size,
  dFf: size,
  numLayers: size,
  maxSeqLength: size,
  theta: z.union([z.number(), z.nan()]).default(100_000),
  numKvHeads: size.optional(),
  tieEmbeddings: z.boolean().default(false),
  qkvBias: z.boolean().default(false),
  headSize: size.optional(),
  normEps: z.number().default(1e-5),
  qkNorm: z.boolean().default(false),
  ropeScaling: z
    .strictObject({
      factor: z.number(),
      lowFreqFactor: z.number(),
      highFreqFactor: z.number(),
      originalMaxPositionEmbeddings: z.number(),
    })
    .nullable()
    .default(null),
  device: z.string().default('cpu'),
  seed: z.int().min(0).default(0),
  dtype: z.enum(['f32', 'bf16']).default('f32'),
  tf32: z.boolean().default(false),
  threads: limits.threads.optional(),
  recompute: z.boolean().default(false),
  detectAnomaly: z.boolean().default(false),
})
