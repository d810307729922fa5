/** `kindling train`: trains, or resumes a run. */
import { Command } from 'commander'
import { resolveOptions, trainFields } from '../../training/config'
import { logRun, summaryText } from '../logger'
import { Trainer } from '../../training/trainer'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { EXIT, run } from '../output'

const EXAMPLES = `
Examples:
  kindling train --corpus book.txt --preset char --max-steps 1000 --run runs/book
  kindling train --data data/stories --d-model 256 --num-layers 4 --batch-size 16
  kindling train --run runs/book --resume
  kindling train --config run.json --lr 3e-4`

export function trainCommand(): Command {
  const command = new Command('train').description('train a model, or resume a run')
  command.option('--config <file>', "JSON file of options, the flags' names in snake_case")
  addFields(command, trainFields).addHelpText('after', EXAMPLES)
  return command.action(
    run(async ({ config, ...flags }, output) => {
      const trainer = new Trainer(resolveOptions(flags, config as string | undefined))
      logRun(trainer, output)
      const summary = await withInterrupt((signal) => trainer.run({ signal }))
      const { steps, loss, val_loss, run: folder } = summary
      output.line({ steps, loss, val_loss, run: folder })
      output.text(summaryText(summary))
      const { stop_at_step: stop } = flags
      if (summary.interrupted && steps !== stop) process.exitCode = EXIT.interrupted
    }),
  )
}
