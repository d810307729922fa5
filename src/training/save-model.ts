/** Saving a model as a run that has not been trained. */
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
  /** The model; it stays as it is. */
  model: Transformer
  /** Its tokenizer: the one that `config.tokenizerHash` names, null for none. */
  tokenizer: Tokenizer | null
  /** The configuration to write, such as that of a model from `load`. */
  config: RunConfig
  /** Texts to keep beside the tokenizer, by the names of their files. Default: none. */
  companions?: Companions | undefined
  /** Updates that the model was trained for. Default 0. */
  step?: number | undefined
}

/**
 * Writes a run folder with one checkpoint, without an optimizer: `generate`, `eval`, `export` and
 * `train --from` take it like any other.
 *
 * @throws KindlingError `ERR_RUN_EXISTS`, `ERR_DISK_FULL`, `ERR_NOT_WRITABLE`; nothing is left then.
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
