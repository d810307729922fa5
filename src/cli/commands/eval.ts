/** `kindling eval`: computes the loss of a trained model on a token store. */
import { Command } from 'commander'
import { z } from 'zod'
import { KindlingError } from '../../errors'
import { parse } from '../../training/config'
import { evaluate } from '../../training/evaluate'
import { withEvaluationData } from '../../training/evaluation-data'
import { checkValidation } from '../../training/store-identity'
import { verifyStores } from '../../training/verify-data'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { SOURCE_ARGUMENT, checkpointFields, corpusFields, loadModel } from '../shared-flags'
import { run } from '../output'
import { CountProgress } from '../progress'

const fields = {
  ...checkpointFields,
  data: z
    .string()
    .meta({ value: 'path' })
    .optional()
    .describe(
      'output folder of `kindling encode`, a _chunks folder, a .npy, a .bin of uint16 ids, or ' +
        "text to encode with the model's tokenizer (default: the run's validation data)",
    ),
  text_field: corpusFields.text_field,
  eval_tokens: z
    .int()
    .min(1)
    .optional()
    .describe('maximum number of tokens to evaluate (default: all)'),
}

const EXAMPLES = [
  'kindling eval runs/book',
  'kindling eval runs/book/checkpoints/step-00000500 --data data/other',
  'kindling eval runs/book --data stories.txt',
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
      const say = (text: string): void => output.note(text)
      const { model, tokenizer, config } = await loadModel(source, options, say)
      const path = options.data ?? config.data.valid
      if (path === null) {
        throw new KindlingError('ERR_NOT_FOUND', 'the run has no validation data; add --data PATH')
      }
      const { seqLength, batchSize, vocabSize } = config.options
      const { loss, perplexity, bitsPerByte, tokens } = await withInterrupt((signal) =>
        withEvaluationData(
          path,
          { tokenizer, textField: options.text_field, signal, message: say },
          async (store) => {
            if (options.data === undefined) checkValidation(config, store)
            await store.checkVocab(vocabSize, { signal })
            await verifyStores([store], { signal, message: say })
            const maxTokens = options.eval_tokens
            const progress = new CountProgress('evaluating', output, 'tokens')
            const onProgress = progress.report.bind(progress)
            const limits = { seqLength, batchSize, maxTokens }
            return evaluate(model, store, { ...limits, onProgress, signal })
          },
        ),
      )
      output.clear()
      output.line({ loss, perplexity, bitsPerByte, tokens })
      const bits = bitsPerByte === null ? '' : `  bits_per_byte ${bitsPerByte.toFixed(4)}`
      output.text(
        `loss ${loss.toFixed(4)}  perplexity ${perplexity.toFixed(2)}${bits}  ` +
          `(${tokens} tokens, windows of ${seqLength})`,
      )
    }),
  )
}
