/** `kindling eval`: computes the loss of a trained model on a token store. */
import { Command } from 'commander'
import { z } from 'zod'
import { KindlingError } from '../../errors'
import { evaluationStore } from '../../store-paths'
import { TokenStore } from '../../token-store'
import { parse } from '../../training/config'
import { evaluate } from '../../training/evaluate'
import { verifyStores } from '../../training/verify-data'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { SOURCE_ARGUMENT, checkpointFields, loadModel } from '../shared-flags'
import { run } from '../output'

const fields = {
  ...checkpointFields,
  data: z
    .string()
    .meta({ value: 'path' })
    .optional()
    .describe(
      'output folder of `kindling encode`, a _chunks folder, a .npy, or a .bin of uint16 ids ' +
        "(default: the run's validation data)",
    ),
  eval_tokens: z.int().min(1).optional().describe('largest number of tokens (default: all)'),
}

const EXAMPLES = [
  'kindling eval runs/book',
  'kindling eval runs/book/checkpoints/step-00000500 --data data/other',
]

export function evalCommand(): Command {
  const command = new Command('eval').description(
    'compute the loss, perplexity and bits per byte of a trained model',
  )
  command.argument(...SOURCE_ARGUMENT)
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output, [source]) => {
      const options = parse(z.strictObject(fields), flags)
      const { model, config } = await loadModel(source, options, (text) => output.note(text))
      const path = options.data ?? config.data.valid
      if (path === null) {
        throw new KindlingError('ERR_NOT_FOUND', 'the run has no validation data; add --data STORE')
      }
      const store = await TokenStore.open(evaluationStore(path))
      await store.checkVocab(config.options.vocabSize)
      await withInterrupt((signal) =>
        verifyStores([store], { signal, message: (text) => output.note(text) }),
      )
      const { loss, perplexity, bitsPerByte, tokens } = await withInterrupt((signal) =>
        evaluate(model, store, {
          seqLength: config.options.seqLength,
          batchSize: config.options.batchSize,
          maxTokens: options.eval_tokens,
          signal,
        }),
      )
      output.line({ loss, perplexity, bitsPerByte, tokens })
      const bits = bitsPerByte === null ? '' : `  bits_per_byte ${bitsPerByte.toFixed(4)}`
      output.text(
        `loss ${loss.toFixed(4)}  perplexity ${perplexity.toFixed(2)}${bits}  (${tokens} tokens)`,
      )
    }),
  )
}
