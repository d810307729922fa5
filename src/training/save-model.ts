/** Saves a model as a run with a single checkpoint. */
import { z } from 'zod'
import { KindlingError } from '../errors'
import type { Companions } from '../exchange/companions'
import { loadedModelFields } from '../exchange/loaded-model'
import { longCall, type LongCallOptions } from '../long-call'
import { native } from '../native'
import { checked, checkedValue, longCallFields } from '../options'
import { Tokenizer } from '../tokenizer'
import { Transformer } from '../transformer'
import { checkedRunConfig, type RunConfig } from './run-config'
import { RunFolder } from './run-folder'

/** A model to save, as `load` returns it. */
export interface SavedModel {
  /** The model, which is not changed. */
  model: Transformer
  /** Its tokenizer: the one that `config.tokenizerHash` names, null for none. */
  tokenizer: Tokenizer | null
  /** The configuration to write, such as that of a model from `load`. */
  config: RunConfig
  /** Files to keep beside the tokenizer: their text, by name. Default: none. */
  companions?: Companions | undefined
  /** Updates that the model was trained for. Default 0. */
  step?: number | undefined
}

/** Beside these and the configuration, what else `load` returns. */
const savedSchema = z.object({ ...loadedModelFields, step: z.int().min(0).default(0) })

/**
 * Writes a run folder with one checkpoint and no optimizer state. `generate`, `eval`, `export` and
 * `train --from` accept it like any other run.
 *
 * @throws KindlingError `ERR_INVALID_ARGUMENT`, `ERR_RUN_EXISTS`, `ERR_DISK_FULL`,
 * `ERR_NOT_WRITABLE`; nothing is left behind then.
 */
export async function save(
  run: string,
  saved: SavedModel,
  options: LongCallOptions = {},
): Promise<void> {
  const monitored = checked('save', z.strictObject(longCallFields), options)
  checkedValue('save: run', z.string().min(1), run)
  const { model, tokenizer, companions, step } = checked('save', savedSchema, saved)
  const config = checkedRunConfig(saved.config)
  Transformer.toNative(model)
  if (tokenizer) Tokenizer.toNative(tokenizer)
  if ((tokenizer?.hash ?? null) !== config.tokenizerHash) {
    throw new KindlingError('ERR_INVALID_ARGUMENT', 'the tokenizer does not match the config')
  }
  const folder = await RunFolder.claim(run, run, () => {})
  try {
    await saveWeights(folder, model, step, monitored)
    await folder.create(config, tokenizer, companions)
    folder.release()
  } catch (error) {
    await folder.abandon()
    throw error
  }
}

/** Writes a checkpoint of a model that has no optimizer yet, and makes it the latest. */
export async function saveWeights(
  folder: RunFolder,
  model: Transformer,
  step: number,
  monitored: LongCallOptions = {},
): Promise<void> {
  const path = folder.checkpoints.path(step)
  const engine = Transformer.toNative(model)
  await longCall(monitored, async (monitor) => native.saveWeights(path, engine, step, monitor))
  await folder.checkpoints.setLatest(step, { keep: 1, keepEvery: 0 })
}
