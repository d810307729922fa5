/** `kindling quickstart`: from raw text to a sample of a trained model in about a minute. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse } from '../../training/config'
import { trainFields } from '../../training/fields'
import { addExamples } from '../examples'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { logRun } from '../logger'
import { EXIT } from '../exit'
import { run } from '../output'
import { outliveOutput } from '../streams'
import { quickstart } from '../quickstart'

const fields = {
  dir: z
    .string()
    .meta({ value: 'dir' })
    .default('.kindling/quickstart')
    .describe('folder for all output'),
  seconds: z.number().positive().default(60).describe('approximate training time'),
  device: trainFields.device,
}

const EXAMPLES = ['kindling quickstart', 'kindling quickstart --seconds 20 --dir first-model']

export function quickstartCommand(): Command {
  const command = new Command('quickstart').description(
    'train a small model on Moby-Dick in about a minute',
  )
  addFields(command, fields)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (flags, output) => {
      const options = parse(z.strictObject(fields), flags)
      outliveOutput()
      const summary = await withInterrupt((signal) =>
        quickstart({
          ...options,
          signal,
          say: (text) => output.note(text),
          watch: (trainer) => logRun(trainer, output),
        }),
      )
      output.line(summary)
      if (summary.interrupted) process.exitCode = EXIT.interrupted
      const { valLoss, unigramEntropy, sampleAfter, run: folder } = summary
      if (valLoss !== null) {
        const gain = unigramEntropy - valLoss
        const difference = `${Math.abs(gain).toFixed(3)} nats per token ${gain < 0 ? 'above' : 'below'}`
        output.text(
          `\nvalidation loss ${valLoss.toFixed(3)}: ${difference} guessing by token frequency`,
        )
      }
      output.text(`after training: ${sampleAfter}\n`)
      output.text(`the run (checkpoint, metrics, tokenizer): ${folder}`)
      output.text(`more text: npx kindling generate ${folder} "The whale"`)
    }),
  )
}
