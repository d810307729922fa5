/** Opens and checks model files of other programs, then reads them into a model. */
import { toCamelCase } from '../case'
import { settle } from '../errors'
import { longCall, type LongCallOptions } from '../long-call'
import { native, type Native } from '../native'
import { Tokenizer } from '../tokenizer'
import { Transformer, type RopeScaling } from '../transformer'
import type { Companions } from './companions'

/** What the tensors of a checkpoint with the course's names do not reveal. */
export interface CourseSizes {
  /** Query heads. */
  numHeads?: number | undefined
  /** Longest context. Default: that of the rotary tables in the file, else 512. */
  maxSeqLength?: number | undefined
  /** Base of the rotary angles. Default 100000. */
  theta?: number | undefined
}

/** The sizes of a model, named like the options of `Transformer`. */
export interface ModelSizes {
  vocabSize: number
  dModel: number
  numHeads: number
  numKvHeads: number
  dFf: number
  numLayers: number
  maxSeqLength: number
  theta: number
  tieEmbeddings: boolean
  qkvBias: boolean
  headSize: number | null
  normEps: number
  qkNorm: boolean
  ropeScaling: RopeScaling | null
}

/** An open model whose tensors have been checked, but not read. */
export class ModelFiles {
  readonly #native: Native.ModelFiles

  private constructor(files: Native.ModelFiles) {
    this.#native = files
  }

  /**
   * Opens a Hugging Face folder, a GGUF file, a PyTorch checkpoint, or a safetensors file with the
   * course's tensor names.
   *
   * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_MODEL` if a file is damaged or tensors are
   * missing, `ERR_UNSUPPORTED` for what the engine cannot compute exactly.
   */
  static async open(path: string, sizes: CourseSizes = {}): Promise<ModelFiles> {
    const { numHeads, maxSeqLength, theta } = sizes
    const given = {
      ...(numHeads !== undefined && { numHeads }),
      ...(maxSeqLength !== undefined && { maxSeqLength }),
      ...(theta !== undefined && { theta }),
    }
    return new ModelFiles(await settle(() => native.ModelFiles.open(path, given)))
  }

  /** Returns `hugging-face`, `gguf`, `pytorch` or `safetensors`. */
  get format(): string {
    return this.#native.format
  }

  /** Returns `llama`, `mistral`, `qwen2`, `qwen3` or `course`. */
  get architecture(): string {
    return this.#native.architecture
  }

  get sizes(): ModelSizes {
    return toCamelCase(JSON.parse(this.#native.config) as object) as ModelSizes
  }

  get companions(): Companions {
    return this.#native.companions()
  }

  /**
   * Opens the tokenizer; null if the model has none.
   *
   * @throws KindlingError `ERR_INVALID_TOKENIZER` for one that cannot be reproduced exactly.
   */
  async tokenizer(): Promise<Tokenizer | null> {
    const tokenizer = await settle(() => this.#native.tokenizer())
    return tokenizer && Tokenizer.fromNative(tokenizer)
  }

  /** Reads the weights into a model of these sizes. Progress is in bytes of f32 weights. */
  async readInto(model: Transformer, monitored: LongCallOptions = {}): Promise<void> {
    const engine = Transformer.toNative(model)
    await longCall(monitored, async (monitor) => this.#native.readInto(engine, monitor))
  }
}
