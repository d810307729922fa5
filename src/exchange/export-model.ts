/** Writes a model for other programs. */
import { basename } from 'node:path'
import { z } from 'zod'
import { KindlingError, settle } from '../errors'
import { longCall, type LongCallOptions } from '../long-call'
import { native, type Native } from '../native'
import { checked, checkedValue, longCallFields } from '../options'
import { Tokenizer } from '../tokenizer'
import { Transformer } from '../transformer'
import type { Companions } from './companions'
import { loadedModelFields } from './loaded-model'

/** Formats of exported models. */
export const EXPORT_FORMATS = ['hf', 'gguf', 'safetensors'] as const
/** Element types of exported tensors. */
export const EXPORT_DTYPES = ['f32', 'bf16', 'f16', 'q8_0'] as const

/** A model to export, as `load` returns it. */
export interface ExportedModel {
  /** The model, which is not changed. */
  model: Transformer
  /** Tokenizer to write beside it; null: none. */
  tokenizer: Tokenizer | null
  /** Text files to write beside a Hugging Face model, by file name. */
  companions?: Companions | undefined
}

/** Options of `exportModel`. */
export interface ExportOptions extends LongCallOptions {
  /**
   * `hf`: a folder for transformers and vLLM; `gguf`: a file for llama.cpp; `safetensors`: a file
   * with the names and shapes of checkpoints. Default `hf`.
   */
  format?: (typeof EXPORT_FORMATS)[number]
  /** Element type of the tensors; `q8_0` is for GGUF only. Default `f32`. */
  dtype?: (typeof EXPORT_DTYPES)[number]
  /** Name of the model in GGUF. Default: the name of `out`. */
  name?: string
}

const schema = z.strictObject({
  ...longCallFields,
  format: z.enum(EXPORT_FORMATS).default('hf'),
  dtype: z.enum(EXPORT_DTYPES).default('f32'),
  name: z.string().min(1).optional(),
})

/** Beside these, what else `load` returns. */
const exportedSchema = z.object(loadedModelFields)

/**
 * Writes a model to `out`, which appears complete or not at all. A folder must not exist yet; a
 * file is replaced.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT` if `out` exists, `ERR_UNSUPPORTED` for options that
 * no architecture of other programs has, `ERR_INVALID_TOKENIZER` for a tokenizer that llama.cpp
 * does not know, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`.
 */
export async function exportModel(
  out: string,
  exported: ExportedModel,
  options: ExportOptions = {},
): Promise<void> {
  const { signal, onProgress, ...kind } = checked('exportModel', schema, options)
  const given = nativeArguments(out, exported, kind)
  await longCall(
    { ...(signal && { signal }), ...(onProgress && { onProgress }) },
    async (monitor) => native.exportModel(...given, monitor),
  )
}

/**
 * Checks an export and writes nothing. The weights of the model are not used.
 *
 * @returns the bytes of the tensors.
 * @throws KindlingError as `exportModel`, except for errors of the disk.
 */
export async function planExport(
  out: string,
  exported: ExportedModel,
  options: ExportOptions = {},
): Promise<number> {
  const given = nativeArguments(out, exported, checked('exportModel', schema, options))
  return settle(() => native.planExport(...given))
}

function nativeArguments(
  out: string,
  exported: ExportedModel,
  options: z.output<typeof schema>,
): [string, Native.Transformer, Native.Tokenizer | null, Native.ExportOptions] {
  checkedValue('exportModel: out', z.string().min(1), out)
  const { model, tokenizer, companions } = checked('exportModel', exportedSchema, exported)
  const { format, dtype, name = basename(out) } = options
  if (format !== 'gguf' && dtype === 'q8_0') {
    throw new KindlingError(
      'ERR_INVALID_ARGUMENT',
      'q8_0 is for GGUF files only; use another dtype',
    )
  }
  if (format === 'gguf' && !tokenizer) {
    throw new KindlingError(
      'ERR_NOT_FOUND',
      'the model has no tokenizer, and a GGUF file needs one; train with one, or export safetensors',
    )
  }
  return [
    out,
    Transformer.toNative(model),
    tokenizer && Tokenizer.toNative(tokenizer),
    { format, dtype, name, companions },
  ]
}
