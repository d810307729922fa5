/** `kindling sweep`: the learning-rate experiment, as a table and a plot. */
import { Command } from 'commander'
import { z } from 'zod'
import { parse, trainFields } from '../../training/config'
import { sweep, toySweep, type SweepResult } from '../sweep'
import { addFields } from '../flags'
import { withInterrupt } from '../interrupt'
import { run } from '../output'

const {
  lr: _lr,
  max_steps: _steps,
  run: _run,
  resume: _resume,
  stop_at_step: _stop,
  ...shared
} = trainFields

const own = {
  lr: z.array(z.number().positive()).min(1).optional().describe('learning rates to try'),
  steps: z.int().min(1).optional().describe('updates of each run (default: 100; the toy: 10)'),
  toy: z
    .boolean()
    .default(false)
    .describe("the course's toy: a 10 x 10 quadratic by SGD at 1e1, 1e2, 1e3"),
}

const EXAMPLES = `
Examples:
  kindling sweep --toy
  kindling sweep --corpus book.txt --preset char --vocab-size 1000 --lr 1e-4 1e-3 1e-2 --steps 200`

const RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
const TOY_RATES = [1e1, 1e2, 1e3]

export function sweepCommand(): Command {
  const command = new Command('sweep').description('the same short run at several learning rates')
  addFields(command, { ...own, ...shared }).addHelpText('after', EXAMPLES)
  return command.action(
    run(async ({ lr, steps, toy, ...flags }, output) => {
      const options = parse(z.strictObject(own), { lr, steps, toy })
      if (options.toy) {
        const results = toySweep(options.lr ?? TOY_RATES, options.steps ?? 10)
        for (const result of results) output.line(result)
        output.text(toyTable(results.map(({ lr: rate, losses }) => ({ rate, losses }))))
        return
      }
      const results = await withInterrupt((signal) =>
        sweep(
          options.lr ?? RATES,
          { ...flags, max_steps: options.steps ?? 100 },
          (result) => output.line(result),
          signal,
        ),
      )
      output.text(table(results))
    }),
  )
}

const WIDTH = 40

function table(results: readonly SweepResult[]): string {
  const reached = results.map((result) => result.val_loss ?? result.loss)
  const finite = reached.filter((loss) => loss !== null)
  const most = Math.max(...finite)
  const best = Math.min(...finite)
  return [
    `${'lr'.padStart(9)} ${'loss'.padStart(9)} ${'val_loss'.padStart(9)}`,
    ...results.map(({ lr, loss, val_loss, diverged }, i) => {
      const bar = reached[i] === null ? '' : '█'.repeat(Math.round((WIDTH * reached[i]!) / most))
      const mark = diverged ? 'diverged' : reached[i] === best ? `${bar} best` : bar
      return `${lr.toExponential(0).padStart(9)} ${number(loss)} ${number(val_loss)} ${mark}`
    }),
  ].join('\n')
}

function number(value: number | null): string {
  return (value === null ? '-' : value.toFixed(4)).padStart(9)
}

function toyTable(results: readonly { rate: number; losses: number[] }[]): string {
  const head = `step ${results.map(({ rate }) => `lr ${rate.toExponential(0)}`.padStart(14)).join('')}`
  const rows = results[0]!.losses.map(
    (_, step) =>
      `${String(step).padStart(4)} ${results.map(({ losses }) => losses[step]!.toExponential(4).padStart(14)).join('')}`,
  )
  return [head, ...rows].join('\n')
}
