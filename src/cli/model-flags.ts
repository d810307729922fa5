/** Flags that name a trained model and the hardware it runs on. */
import { z } from 'zod'
import { trainFields } from '../training/config'
import { threads } from './corpus-flags'

export const checkpointFields = {
  run: z
    .string()
    .meta({ value: 'dir' })
    .optional()
    .describe('run folder; its newest checkpoint is used'),
  checkpoint: z
    .string()
    .meta({ value: 'dir' })
    .optional()
    .describe('a certain checkpoint, such as RUN/checkpoints/step-00000500'),
  device: trainFields.device,
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe("precision of the matrix products (default: the run's)"),
  threads,
}
