/**
 * The model: a decoder-only Transformer of Llama's family (pre-norm blocks, RMSNorm, rotary positions, SwiGLU).
 * Its weights, activations and gradients live in native memory; every long call is a promise and runs off the event loop.
 */
import { Batch, type BatchArrays } from './batch'
import { resolveDevice } from './device'
import { KindlingError, call, settle } from './errors'
import { native } from './native'

/** Sizes and choices of a model. */
export interface TransformerOptions {
  /** Tokens in the vocabulary; a tokenizer's vocabSize, or larger (padding). */
  vocabSize: number
  /** Width of the residual stream. Divisible by numHeads. */
  dModel: number
  /** Query heads; the head size dModel / numHeads is even. */
  numHeads: number
  /** Width of the feed-forward layer. */
  dFf: number
  /** Blocks. */
  numLayers: number
  /** Longest context in tokens. */
  maxSeqLength: number
  /** Base of the rotary angles. Default 100000. */
  theta?: number
  /** Key/value heads; divides numHeads. Default numHeads. */
  numKvHeads?: number
  /** Use the embedding matrix as the output layer. Default false. */
  tieEmbeddings?: boolean
  /** Give the query, key and value projections a bias. Default false. */
  qkvBias?: boolean
  /** `cpu`, `cuda`, `cuda:N`, or `auto`: cuda where there is one, else cpu. Default `cpu`. */
  device?: string
  /** Seed of the initial weights, an integer from 0. Default 0. */
  seed?: number
  /**
   * Arithmetic of the matrix products. `bf16`: operands rounded to bf16, sums, weights, norms and losses in f32; on a CPU
   * without instructions for it (AVX512-BF16 or AMX) all in f32. Default `f32`.
   */
  dtype?: 'f32' | 'bf16'
  /** On cuda, products of f32 may be rounded to TensorFloat-32. Default false. */
  tf32?: boolean
  /** Threads of the CPU engine. Default: the cores this process may use. Results do not depend on it. */
  threads?: number
  /**
   * Keep only the residual stream on entry of each block and run the block's forward pass again in the backward pass: the
   * same gradients, bit for bit, in less memory. Default false.
   */
  recompute?: boolean
}

/** A named tensor, row-major. */
export interface Tensor {
  shape: number[]
  data: Float32Array
}

/** Tensors by their names, as checkpoint files have them. */
export type TensorRecord = Record<string, Tensor>

/** What one op of the engine took. */
export interface OpProfile {
  /** The op, with the sizes of a linear layer: `linear::forward 512 -> 1536`. */
  op: string
  /** How often it ran. */
  calls: number
  /** Seconds of wall time in all. */
  seconds: number
  /** Floating-point operations of its products in all; 0 where it has none. */
  flops: number
}

/** What a model computes on. */
export interface DeviceState {
  /** `cpu` or `cuda`. */
  device: string
  /** A GPU's name, as its driver gives it. */
  name?: string
  /** Bytes of device memory, the most in use at once; absent on the CPU. */
  peakBytes?: number
}

/** Choices of one forward and backward pass. */
export interface ForwardBackwardOptions {
  /** Read the loss. `false` costs no device synchronisation and gives null. Default true. */
  readLoss?: boolean
  /** Multiplies the gradients: 1 / n where n batches are accumulated into one step. Default 1. */
  scale?: number
}

/**
 * A Transformer language model.
 *
 * The constructor checks the options and returns at once; memory is taken and weights are drawn in the first awaited
 * call. One call at a time: a second one before the first has settled is refused with `ERR_BUSY`.
 */
export class Transformer {
  readonly #native: native.Transformer
  readonly #options: Readonly<Required<TransformerOptions>>

  /**
   * @throws KindlingError `ERR_INVALID_CONFIG` (sizes that make no model), `ERR_INVALID_ARGUMENT` (a wrong kind of
   * value, an unknown dtype), `ERR_DEVICE_UNAVAILABLE`.
   */
  constructor(options: TransformerOptions) {
    if (typeof options !== 'object' || options === null) {
      throw new KindlingError(
        'ERR_INVALID_ARGUMENT',
        'Transformer takes an object: { vocabSize, dModel, ... }',
      )
    }
    this.#options = Object.freeze({
      vocabSize: options.vocabSize,
      dModel: options.dModel,
      numHeads: options.numHeads,
      dFf: options.dFf,
      numLayers: options.numLayers,
      maxSeqLength: options.maxSeqLength,
      theta: options.theta ?? 100_000,
      numKvHeads: options.numKvHeads ?? options.numHeads,
      tieEmbeddings: options.tieEmbeddings ?? false,
      qkvBias: options.qkvBias ?? false,
      device: resolveDevice(options.device ?? 'cpu'),
      seed: options.seed ?? 0,
      dtype: options.dtype ?? 'f32',
      tf32: options.tf32 ?? false,
      threads: options.threads ?? native.availableThreads(),
      recompute: options.recompute ?? false,
    })
    this.#native = call(() => new native.Transformer(this.#options))
  }

  /** The options, defaults filled in. */
  get options(): Readonly<Required<TransformerOptions>> {
    return this.#options
  }

  /** What matrix products are computed with: `bf16` where the dtype and the processor allow it, else `f32`. */
  get arithmetic(): 'f32' | 'bf16' {
    const { dtype, device } = this.#options
    return dtype === 'bf16' && device === 'cpu' && native.bf16Instructions() === null
      ? 'f32'
      : dtype
  }

  /** Trainable numbers in the model. */
  get numParameters(): number {
    return this.#native.numParameters
  }

  /**
   * The mean cross-entropy of a batch, and its gradients, which are added to the model's.
   *
   * @returns the loss in nats a token, or null with `readLoss: false`.
   * @throws KindlingError `ERR_TOKEN_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT` (rows longer than maxSeqLength), `ERR_BUSY`,
   * `ERR_CLOSED`.
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
    const { readLoss = true, scale = 1 } = options
    const loss = await settle(() => this.#native.forwardBackward(handle, scale, readLoss))
    return { loss }
  }

  /**
   * The mean of the losses that were not read (`readLoss: false`) since it was last taken; waits for the device. 0 where there
   * are none.
   *
   * @throws KindlingError `ERR_NON_FINITE` where an update that nobody waited for could not be made.
   */
  async takeLoss(): Promise<number> {
    return settle(() => this.#native.takeLoss())
  }

  /** What the model computes on: the device's kind, and of a GPU its name and the most memory that was in use at once. */
  async deviceState(): Promise<DeviceState> {
    return settle(() => this.#native.deviceState())
  }

  /** Waits for the work that is queued on the device, as a measurement of its time has to. */
  async synchronize(): Promise<void> {
    return settle(() => this.#native.synchronize())
  }

  /** The mean cross-entropy of a batch in nats a token; gradients stay as they are. */
  async loss(batch: Batch | BatchArrays): Promise<number> {
    const handle = Batch.toNative(batch)
    return settle(() => this.#native.loss(handle))
  }

  /**
   * The scores of the next token after each position.
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

  /** A copy of every parameter, in the shapes of checkpoint files. */
  async stateDict(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.stateDict()))
  }

  /**
   * Replaces every parameter.
   *
   * @throws KindlingError `ERR_CHECKPOINT_MISMATCH` naming every missing, unexpected and misshapen tensor; the weights
   * then stay as they were.
   */
  async loadStateDict(tensors: TensorRecord): Promise<void> {
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

  /** A copy of every parameter's gradient, in the shapes of `stateDict`; zeros after a step. */
  async gradients(): Promise<TensorRecord> {
    return toRecord(await settle(() => this.#native.gradients()))
  }

  /** Sets every gradient to zero, as `step` does after using them. */
  async zeroGradients(): Promise<void> {
    await settle(() => this.#native.zeroGradients())
  }

  /** Begins to record where the engine's time goes; see `stopProfile`. */
  async startProfile(): Promise<void> {
    return settle(() => this.#native.startProfile())
  }

  /** Ends the record; gives the time of each op since `startProfile`, the longest first. */
  async stopProfile(): Promise<OpProfile[]> {
    return settle(() => this.#native.stopProfile())
  }

  /** Frees the memory, at once or when the call under way has settled. Closing again does nothing. */
  async close(): Promise<void> {
    call(() => this.#native.close())
  }

  /** `await using model = new Transformer(...)` closes it at the end of the block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** @internal */
  static toNative(model: Transformer): native.Transformer {
    if (model instanceof Transformer) return model.#native
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'this takes a Transformer')
  }
}

function toRecord(tensors: native.Tensor[]): TensorRecord {
  return Object.fromEntries(tensors.map(({ name, shape, data }) => [name, { shape, data }]))
}
