/**
 * The model: a decoder-only Transformer of the Llama family (pre-norm, RMSNorm, rotary position
 * embeddings, SwiGLU). Weights, activations and gradients stay in native memory. Every long call
 * runs off the event loop and returns a promise.
 */
import { z } from 'zod'
import { Batch, type BatchArrays } from './batch'
import { resolveDevice } from './device'
import { KindlingError, call, settle } from './errors'
import { limits } from './limits'
import { native, type Native } from './native'
import { checked } from './options'

/** Scaling of the rotary angles, named as `rope_scaling` in Hugging Face's config.json. */
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
  /** Base of the angles of rotary position embeddings. Default 100000. */
  theta?: number
  /** Key/value heads; a divisor of numHeads. Default numHeads. */
  numKvHeads?: number
  /** Use the embedding matrix as the output layer. Default false. */
  tieEmbeddings?: boolean
  /** Give the query, key and value projections a bias. Default false. */
  qkvBias?: boolean
  /** Width of a head, even. Default dModel / numHeads. */
  headSize?: number
  /** Added to the mean square in every RMSNorm. Default 1e-5. */
  normEps?: number
  /** Norm each query and key over its head, before the rotation. Default false. */
  qkNorm?: boolean
  /** Scale the rotary angles as Llama 3.1 does, for longer contexts. Default none. */
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
   * Save only the residual stream on entry of each block, and recompute the block's activations in
   * the backward pass: less memory, more time, and the same gradients bit for bit. Default false.
   */
  recompute?: boolean
}

/** A named tensor, row-major. */
export interface Tensor {
  shape: number[]
  data: Float32Array
}

/** Tensors by name, as in checkpoint files. */
export type TensorRecord = Record<string, Tensor>

/** Time spent in one op of the engine. */
export interface OpProfile {
  /** Name of the op; for a linear layer, with its sizes: `linear::forward 512 -> 1536`. */
  op: string
  calls: number
  /** Total wall time in seconds. */
  seconds: number
  /** Total floating-point operations of its matrix products; 0 if it has none. */
  flops: number
}

/** Device of a model. */
export interface DeviceState {
  /** `cpu` or `cuda`. */
  device: string
  /** Name of the GPU, as its driver reports it; absent on the CPU. */
  name?: string
  /** Peak device memory in bytes; absent on the CPU. */
  peakBytes?: number
}

/** Options of one forward and backward pass. */
export interface ForwardBackwardOptions {
  /**
   * Return the loss. With `false` nothing waits for the device, and the loss is null. Default true.
   */
  readLoss?: boolean
  /** Factor of the gradients: 1 / n when accumulating n batches into one step. Default 1. */
  scale?: number
}

/** A size; the engine checks its range and how the sizes fit together. */
const size = z.int().min(0)
const schema = z.strictObject({
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
})
const passSchema = z.strictObject({
  readLoss: z.boolean().default(true),
  scale: z.number().default(1),
})

/**
 * A Transformer language model.
 *
 * The constructor only checks the options. The first call allocates memory and draws the initial
 * weights. A model serves one call at a time; a second one before the first has settled fails with
 * `ERR_BUSY`.
 */
export class Transformer {
  readonly #native: Native.Transformer
  readonly #options: Readonly<Required<TransformerOptions>>

  /**
   * @throws KindlingError `ERR_INVALID_CONFIG` if no model can have these sizes,
   * `ERR_INVALID_ARGUMENT` if an option has the wrong type or an unknown value.
   */
  constructor(options: TransformerOptions) {
    const { headSize, ropeScaling, ...given } = checked('Transformer', schema, options)
    const filled = {
      ...given,
      numKvHeads: given.numKvHeads ?? given.numHeads,
      device: resolveDevice(given.device),
      threads: given.threads ?? native.availableThreads(),
    }
    this.#native = call(
      () =>
        new native.Transformer({
          ...filled,
          ...(headSize !== undefined && { headSize }),
          ...(ropeScaling && { ropeScaling }),
        }),
    )
    this.#options = Object.freeze({
      ...filled,
      headSize: headSize ?? given.dModel / given.numHeads,
      ropeScaling,
    })
  }

  /** Returns the options with the defaults filled in. */
  get options(): Readonly<Required<TransformerOptions>> {
    return this.#options
  }

  /**
   * Returns the dtype of the operands of matrix products: `bf16` if requested and supported, else
   * `f32`.
   */
  get arithmetic(): 'f32' | 'bf16' {
    const { dtype, device } = this.#options
    return dtype === 'bf16' && device === 'cpu' && native.bf16Instructions() === null
      ? 'f32'
      : dtype
  }

  /** Returns the number of trainable parameters; a tied output layer counts once. */
  get numParameters(): number {
    return this.#native.numParameters
  }

  /**
   * Computes the mean cross-entropy of a batch and adds its gradients to the model's.
   *
   * @returns the loss in nats per token, or null with `readLoss: false`.
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` if rows are longer than
   * maxSeqLength, `ERR_BUSY`, `ERR_CLOSED`.
   */
  async forwardBackward(
    batch: Batch | BatchArrays,
    options: ForwardBackwardOptions & { readLoss: false },
  ): Promise<{ loss: null }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options?: ForwardBackwardOptions & { readLoss?: true },
  ): Promise<{ loss: number }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options?: ForwardBackwardOptions,
  ): Promise<{ loss: number | null }>
  async forwardBackward(
    batch: Batch | BatchArrays,
    options: ForwardBackwardOptions = {},
  ): Promise<{ loss: number | null }> {
    const handle = Batch.toNative(batch)
    const { readLoss, scale } = checked('forwardBackward', passSchema, options)
    const loss = await settle(() => this.#native.forwardBackward(handle, scale, readLoss))
    return { loss }
  }

  /**
   * Returns the mean of the losses of passes with `readLoss: false` since the last call, in nats
   * per token; 0 if there were none. Waits for the device.
   *
   * @throws KindlingError `ERR_NON_FINITE` if a queued update was skipped because a gradient was
   * NaN or infinite.
   */
  async takeLoss(): Promise<number> {
    return settle(() => this.#native.takeLoss())
  }

  /** Returns the kind of device and, for a GPU, its name and peak memory. */
  async deviceState(): Promise<DeviceState> {
    return settle(() => this.#native.deviceState())
  }

  /** Waits until the device has finished all queued work, as a timing needs to. */
  async synchronize(): Promise<void> {
    return settle(() => this.#native.synchronize())
  }

  /** Returns the mean cross-entropy of a batch in nats per token, without computing gradients. */
  async loss(batch: Batch | BatchArrays): Promise<number> {
    const handle = Batch.toNative(batch)
    return settle(() => this.#native.loss(handle))
  }

  /**
   * Returns the logits of the next token after each position.
   *
   * @param ids - at most maxSeqLength token ids.
   * @returns ids.length x vocabSize, row-major.
   */
  async logits(ids: Uint32Array): Promise<Float32Array> {
    if (!(ids instanceof Uint32Array)) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'logits takes a Uint32Array of token ids')
    }
    return settle(() => this.#native.logits(ids))
  }

  /** Copies every parameter, in the shapes of checkpoint files. */
  async stateDict(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.stateDict()))
  }

  /**
   * Replaces every parameter.
   *
   * @throws KindlingError `ERR_CHECKPOINT_MISMATCH` naming every missing or unexpected tensor and
   * every wrong shape; the weights are then unchanged.
   */
  async loadStateDict(tensors: TensorRecord): Promise<void> {
    if (typeof tensors !== 'object' || tensors === null) {
      throw new KindlingError('ERR_INVALID_ARGUMENT', 'loadStateDict takes tensors by name')
    }
    const list = Object.entries(tensors).map(([name, tensor]) => {
      if (!(tensor?.data instanceof Float32Array) || !Array.isArray(tensor.shape)) {
        throw new KindlingError(
          'ERR_INVALID_ARGUMENT',
          `loadStateDict: ${name} is not { shape, data: Float32Array }`,
        )
      }
      return { name, shape: tensor.shape, data: tensor.data }
    })
    await settle(() => this.#native.loadStateDict(list))
  }

  /** Copies every parameter's gradient, in the shapes of `stateDict`. All are zero after a step. */
  async gradients(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.gradients()))
  }

  /** Sets every gradient to zero, as an optimizer's `step` does. */
  async zeroGradients(): Promise<void> {
    await settle(() => this.#native.zeroGradients())
  }

  /** Returns the name of the first tensor of weights with a NaN or an infinity; null if none has. */
  async nonFiniteWeight(): Promise<string | null> {
    return settle(() => this.#native.nonFiniteWeight())
  }

  /** Returns the name of the first tensor of gradients with a NaN or an infinity, or null. */
  async nonFiniteGradient(): Promise<string | null> {
    return settle(() => this.#native.nonFiniteGradient())
  }

  /** Starts recording the time of each op, until `stopProfile`. */
  async startProfile(): Promise<void> {
    return settle(() => this.#native.startProfile())
  }

  /** Stops recording. Returns the time of each op since `startProfile`, longest first. */
  async stopProfile(): Promise<OpProfile[]> {
    return settle(() => this.#native.stopProfile())
  }

  /**
   * Frees the memory, at once or when the pending call settles. Never waits for that call, and may
   * be called again. Later calls fail with `ERR_CLOSED`.
   */
  async close(): Promise<void> {
    call(() => this.#native.close())
  }

  /** Closes the model at the end of the block: `await using model = new Transformer(...)`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @internal */
  static toNative(model: Transformer): Native.Transformer {
    if (model instanceof Transformer) return model.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'expected a Transformer')
  }
}

function toRecord(tensors: Native.Tensor[]): TensorRecord {
  return Object.fromEntries(tensors.map(({ name, shape, data }) => [name, { shape, data }]))
}
