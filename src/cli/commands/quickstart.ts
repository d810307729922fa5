/** `kindling quickstart`: from raw text to a trained model's sample, in about a minute. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse, trainFields } from '../../training/config'
import { logRun } from '../logger'
import { quickstart } from '../quickstart'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { EXIT, run } from '../output'

const fields = {
  dir: z.string().default('.kindling/quickstart').describe('folder for everything it writes'),
  seconds: z.number().positive().default(60).describe('seconds of training, about'),
  device: trainFields.device,
}

const EXAMPLES = `
Examples:
  kindling quickstart
  kindling quickstart --seconds 20 --dir /tmp/first-model`

export function quickstartCommand(): Command {
  const command = new Command('quickstart').description(
    'train a small model on Moby-Dick: the whole way in a minute',
  )
  addFields(command, fields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async (flags, output) => {
      const options = parse(z.strictObject(fields), flags)
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
      const { val_loss, unigram_entropy, sample_after, run: folder } = summary
      if (val_loss !== null) {
        const gain = unigram_entropy - val_loss
        output.text(
          `\nvalidation loss ${val_loss.toFixed(3)}: ${gain.toFixed(3)} nats a token below the frequencies'`,
        )
      }
      output.text(`after training: ${sample_after}\n`)
      output.text(`the run (checkpoint, metrics, tokenizer): ${folder}`)
      output.text(`more text: npx kindling generate --run ${folder} --prompt "The whale"`)
    }),
  )
}
