/** Saves a model as a run with a single checkpoint. */
import { z } from 'zod'
import { KindlingError } from '../errors'
import type { Companions } from '../exchange/companions'
import { longCall, type LongCallOptions } from '../long-call'
import { native } from '../native'
import { checked, longCallFields } from '../options'
import type { Tokenizer } from '../tokenizer'
import { Transformer } from '../transformer'
import type { RunConfig } from './run-config'
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

/**
 * Writes a run folder with one checkpoint and no optimizer state. `generate`, `eval`, `export` and
 * `train --from` accept it like any other run.
 *
 * @throws KindlingError `ERR_RUN_EXISTS`, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`; nothing is left
 * behind then.
 */
export async function save(
  run: string,
  saved: SavedModel,
  options: LongCallOptions = {},
): Promise<void> {
  const monitored = checked('save', z.strictObject(longCallFields), options)
  const { model, tokenizer, config, companions = {}, step = 0 } = saved
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
