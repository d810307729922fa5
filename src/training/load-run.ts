/** Loads a trained model from the newest checkpoint of a run, or from a given one. */
import { Checkpoint } from '../checkpoint'
import { KindlingError } from '../errors'
import type { Tokenizer } from '../tokenizer'
import type { Transformer } from '../transformer'
import type { RunConfig } from './run-config'
import { locateCheckpoint } from './run-checkpoints'
import { RunFolder } from './run-folder'
import { buildLoadedModel } from './run-plan'

/** A run, or one checkpoint of it, and the device to load it on. */
export interface RunLocation {
  /** Run folder. */
  run?: string | undefined
  /** Checkpoint folder inside a run, RUN/best or RUN/latest, instead of `run`. */
  checkpoint?: string | undefined
  /** Default `cpu`. */
  device?: string | undefined
  /** Default: the cores available to this process. */
  threads?: number | undefined
  /** Precision of the matrix multiplications. Default: the run's. */
  dtype?: 'f32' | 'bf16' | undefined
  /** Receives a sentence if a checkpoint cannot be read and an earlier one is used. */
  onMessage?: ((text: string) => void) | undefined
}

/** A trained model with its tokenizer and configuration. */
export interface LoadedRun {
  model: Transformer
  tokenizer: Tokenizer | null
  config: RunConfig
  /** Updates that the model was trained for. */
  step: number
}

/**
 * Loads the newest checkpoint of a run, or the one given.
 *
 * @throws KindlingError `ERR_USAGE` (not exactly one of run and checkpoint), `ERR_NOT_FOUND`,
 * `ERR_INVALID_CHECKPOINT`.
 */
export async function loadRun(location: RunLocation): Promise<LoadedRun> {
  const { run, checkpoint, device = 'cpu', threads, dtype, onMessage } = location
  if ((run === undefined) === (checkpoint === undefined)) {
    throw new KindlingError(
      'ERR_USAGE',
      'give --run RUN or --checkpoint RUN/checkpoints/step-... (or RUN/best)',
    )
  }
  const located = checkpoint === undefined ? null : locateCheckpoint(checkpoint)
  const folder = new RunFolder(run ?? located!.run)
  const config = folder.readConfig()
  const tokenizer = await folder.openTokenizer(config)
  const model = buildLoadedModel(config.options, { device, threads, dtype })
  try {
    if (located !== null) {
      const path = folder.checkpoints.path(located.step)
      return { model, tokenizer, config, step: await Checkpoint.load(path, model) }
    }
    const found = await folder.checkpoints.loadNewest(
      ({ path }) => Checkpoint.load(path, model),
      onMessage,
    )
    if (found) return { model, tokenizer, config, step: found.step }
    throw new KindlingError('ERR_NOT_FOUND', `${folder.path} has no checkpoint yet; train first`)
  } catch (error) {
    await model.close()
    throw error
  }
}
