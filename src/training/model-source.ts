/**
 * Opens a model from any source: a run, one of its checkpoints, a Hugging Face folder, a GGUF file,
 * a PyTorch checkpoint, or `hf:org/name`.
 */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { toSnakeCase } from '../case'
import { loadWeights } from '../checkpoint'
import { KindlingError } from '../errors'
import { readCompanions, stopIdsOf, type Companions } from '../exchange/companions'
import { localPath } from '../exchange/hub'
import { ModelFiles, type CourseSizes, type ModelSizes } from '../exchange/model-files'
import { readText } from '../files'
import { limits } from '../limits'
import type { LongCallOptions } from '../long-call'
import { callback, checked, checkedValue, longCallFields } from '../options'
import type { Tokenizer } from '../tokenizer'
import type { Transformer } from '../transformer'
import { resolveOptions } from './resolve-options'
import type { RunConfig } from './run-config'
import { locateCheckpoint } from './run-checkpoints'
import { RunFolder } from './run-folder'
import { buildLoadedModel } from './run-plan'

/** A model that was found, but whose weights have not been read. */
export interface ModelSource {
  /** The configuration of the run; for other models, the one that importing them would write. */
  config: RunConfig
  tokenizer: Tokenizer | null
  companions: Companions
  /** The folder of the run; null for models of other programs. */
  run: RunFolder | null
  /**
   * Returns the number of updates that the weights were trained for, from the name of their
   * checkpoint.
   *
   * @throws KindlingError `ERR_NOT_FOUND` for a run without a checkpoint.
   */
  step: () => Promise<number>
  /**
   * Reads the weights into a model built from `config`; returns the number of updates they were
   * trained for.
   */
  read: (model: Transformer, monitored?: LongCallOptions) => Promise<number>
}

/** Options of `load`. */
export interface LoadOptions extends CourseSizes, LongCallOptions {
  /** `cpu`, `cuda`, `cuda:N` or `auto`. Default `cpu`. */
  device?: string
  /** Threads of the CPU engine. Default: the cores available to this process. */
  threads?: number
  /** Precision of the matrix multiplications. Default: the run's, else `f32`. */
  dtype?: 'f32' | 'bf16'
  /** Receives a sentence if a checkpoint cannot be read and an earlier one is used. */
  onMessage?: (text: string) => void
}

/** A model with its tokenizer and configuration. */
export interface LoadedModel {
  /** The model, with its weights loaded. */
  model: Transformer
  /** Its tokenizer, null if there is none beside the model. */
  tokenizer: Tokenizer | null
  /** The configuration of the run; for other models, the one that importing them would write. */
  config: RunConfig
  /** Updates that the model was trained for here; 0 for models of other programs. */
  step: number
  /**
   * Files that came with the model, by name: tokenizer_config.json with the chat template, and
   * generation_config.json.
   */
  companions: Companions
  /** Ids that end a text or a turn according to the model's own files; pass them to `generate`. */
  stopIds: number[]
}

const loadSchema = z.strictObject({
  ...longCallFields,
  device: z.string().default('cpu'),
  threads: limits.threads.optional(),
  dtype: z.enum(['f32', 'bf16']).optional(),
  onMessage: callback<(text: string) => void>().optional(),
  numHeads: limits.width.optional(),
  maxSeqLength: limits.positions.optional(),
  theta: z.number().positive().optional(),
})

/**
 * Loads a model with its tokenizer.
 *
 * @param source - a run, RUN/checkpoints/step-..., a Hugging Face folder, a .gguf file, a PyTorch
 * checkpoint with the course's tensor names (which needs `numHeads`), or `hf:org/name`.
 * @throws KindlingError `ERR_NOT_FOUND`, `ERR_INVALID_CHECKPOINT`, `ERR_INVALID_MODEL` if a file is
 * damaged, `ERR_UNSUPPORTED` for an architecture or option that cannot be reproduced exactly.
 */
export async function load(source: string, options: LoadOptions = {}): Promise<LoadedModel> {
  checkedValue('load: source', z.string().min(1), source)
  const given = checked('load', loadSchema, options)
  const { device, threads, dtype, onMessage, signal, onProgress, ...sizes } = given
  const monitored = { ...(signal && { signal }), ...(onProgress && { onProgress }) }
  const found = await openModelSource(source, sizes, { ...monitored, onMessage })
  const { config, tokenizer, companions } = found
  const model = buildLoadedModel(config.options, { device, threads, dtype })
  try {
    const step = await found.read(model, monitored)
    return { model, tokenizer, config, step, companions, stopIds: stopIdsOf(companions, tokenizer) }
  } catch (error) {
    await model.close()
    throw error
  }
}

/**
 * Receivers of the messages of `openModelSource` and of the progress of a download, and its
 * cancellation.
 */
interface OpenOptions extends LongCallOptions {
  onMessage?: ((text: string) => void) | undefined
}

/**
 * Finds a model without reading its weights. A model on the Hugging Face Hub is downloaded first.
 *
 * @throws KindlingError as `load`.
 */
export async function openModelSource(
  source: string,
  sizes: CourseSizes = {},
  options: OpenOptions = {},
): Promise<ModelSource> {
  const { onMessage, ...monitored } = options
  const path = await localPath(source, monitored)
  if (isCheckpoint(path)) return openRun(runOfSource(path), path, onMessage)
  if (namesCheckpoint(path)) {
    const { run, step } = locateCheckpoint(path)
    return openRun(run, new RunFolder(run).checkpoints.path(step), onMessage)
  }
  if (isRun(path)) return openRun(path, null, onMessage)
  const files = await ModelFiles.open(path, sizes)
  const tokenizer = await files.tokenizer()
  return {
    config: configOf(files.sizes, tokenizer),
    tokenizer,
    companions: files.companions,
    run: null,
    step: () => Promise.resolve(0),
    read: async (model, monitored) => {
      await files.readInto(model, monitored)
      return 0
    },
  }
}

async function openRun(
  path: string,
  checkpoint: string | null,
  onMessage: ((text: string) => void) | undefined,
): Promise<ModelSource> {
  const run = new RunFolder(path)
  const config = run.readConfig()
  return {
    config,
    tokenizer: await run.openTokenizer(config),
    companions: readCompanions(run.tokenizerPath),
    run,
    step: async () => {
      if (checkpoint !== null) return locateCheckpoint(checkpoint).step
      const newest = await run.checkpoints.newestStep()
      if (newest === null) throw noCheckpoint(path)
      return newest
    },
    read: async (model, monitored) => {
      if (checkpoint !== null) return loadWeights(checkpoint, model, monitored)
      const found = await run.checkpoints.loadNewest(
        (newest) => loadWeights(newest.path, model, monitored),
        onMessage,
      )
      if (found) return found.step
      throw noCheckpoint(path)
    },
  }
}

function noCheckpoint(run: string): KindlingError {
  return new KindlingError('ERR_NOT_FOUND', `${run} has no checkpoint yet; train first`)
}

function isCheckpoint(path: string): boolean {
  const inCheckpoints = basename(dirname(resolve(path))) === 'checkpoints'
  return inCheckpoints && existsSync(join(path, 'state.json'))
}

/**
 * Returns the run that a source names, or whose checkpoint it names; any other source is returned
 * as it is.
 */
export function runOfSource(source: string): string {
  if (isCheckpoint(source)) return dirname(dirname(resolve(source)))
  return namesCheckpoint(source) ? dirname(resolve(source)) : source
}

/** Returns true for RUN/best and RUN/latest. */
function namesCheckpoint(path: string): boolean {
  const whole = resolve(path)
  return ['best', 'latest'].includes(basename(whole)) && isRun(dirname(whole))
}

/**
 * Returns whether a path is a run folder. A config.json of transformers has a model_type; a run's
 * has none.
 */
function isRun(path: string): boolean {
  const config = join(path, 'config.json')
  if (!existsSync(config) || !statSync(config).isFile()) return false
  try {
    const json = JSON.parse(readText(config, 'ERR_INVALID_CHECKPOINT')) as {
      model_type?: unknown
    } | null
    return json?.model_type === undefined
  } catch {
    // Reading the run reports what is wrong with the file.
    return existsSync(join(path, 'checkpoints'))
  }
}

/** Converts the sizes of a model to options of a run, in snake_case. */
export function sizeOptions(sizes: ModelSizes): Record<string, unknown> {
  const { headSize, ropeScaling, ...rest } = sizes
  return {
    ...toSnakeCase(rest),
    ...(headSize !== null && { head_size: headSize }),
    ...(ropeScaling !== null && {
      rope_scaling: [
        ropeScaling.factor,
        ropeScaling.lowFreqFactor,
        ropeScaling.highFreqFactor,
        ropeScaling.originalMaxPositionEmbeddings,
      ],
    }),
  }
}

/** Returns the config.json of a run that holds an imported model, with no updates to do. */
function configOf(sizes: ModelSizes, tokenizer: Tokenizer | null): RunConfig {
  const seqLength = Math.min(sizes.maxSeqLength, DEFAULT_SEQ_LENGTH)
  const { options } = resolveOptions({ ...sizeOptions(sizes), seq_length: seqLength })
  return {
    formatVersion: 1,
    options: { ...options, vocabSize: sizes.vocabSize },
    data: { train: [], valid: null },
    tokenizerHash: tokenizer?.hash ?? null,
    totalSteps: 0,
  }
}

/** Default tokens per window. */
export const DEFAULT_SEQ_LENGTH = 256
