/** `kindling eval`: the loss of a trained model on a store. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse, trainFields } from '../../training/config'
import { KindlingError } from '../../errors'
import { evaluate } from '../../training/evaluate'
import { loadRun } from '../../training/run-folder'
import { TokenStore } from '../../token-store'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run } from '../output'

const fields = {
  run: z.string().optional().describe('run whose newest checkpoint is taken'),
  checkpoint: z.string().optional().describe('one checkpoint, as RUN/checkpoints/step-00000500'),
  data: z.string().optional().describe("store to evaluate on (default: the run's validation data)"),
  eval_tokens: z.int().min(1).optional().describe('tokens, at most (default: all)'),
  device: trainFields.device,
  dtype: z
    .enum(['f32', 'bf16'])
    .optional()
    .describe("arithmetic of the matrix products (default: the run's)"),
  threads: z.int().min(1).optional().describe('threads of the CPU engine'),
}

const EXAMPLES = `
Examples:
  kindling eval --run runs/book
  kindling eval --checkpoint runs/book/checkpoints/step-00000500 --data data/other/valid_chunks --json`

export function evalCommand(): Command {
  const command = new Command('eval').description(
    'loss, perplexity and bits per byte of a trained model',
  )
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output) => {
      const options = parse(z.strictObject(fields), flags)
      const { model, config } = await loadRun(options)
      const path = options.data ?? config.data.valid
      if (path === null) {
        throw new KindlingError(
          'ERR_NOT_FOUND',
          'the run has no validation data; give --data STORE',
        )
      }
      const store = await TokenStore.open(path)
      await store.checkVocab(config.model.vocabSize)
      const { loss, perplexity, bitsPerByte, tokens } = await withInterrupt((signal) =>
        evaluate(model, store, {
          seqLength: config.options.seq_length,
          batchSize: config.options.batch_size,
          maxTokens: options.eval_tokens,
          signal,
        }),
      )
      output.line({ loss, perplexity, bits_per_byte: bitsPerByte, tokens })
      const bits = bitsPerByte === null ? '' : `  bits_per_byte ${bitsPerByte.toFixed(4)}`
      output.text(
        `loss ${loss.toFixed(4)}  perplexity ${perplexity.toFixed(2)}${bits}  (${tokens} tokens)`,
      )
    }),
  )
}
