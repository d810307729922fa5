/** The help of every command: its width, its groups, and the options that it keeps for --help-all. */
import test from 'ava'
import { CommanderError, type Command } from 'commander'
import { breakCommand } from '../src/cli/help'
import { program } from '../src/cli/program'
import { trainFields } from '../src/training/fields'

/** Returns the help of a command for a terminal of `width` columns. */
function help(
  names: readonly string[],
  width: number,
  { flag = '--help', root = program() }: { flag?: string; root?: Command } = {},
): string {
  let text = ''
  const prepare = (command: Command): void => {
    command.configureOutput({
      writeOut: (piece) => (text += piece),
      getOutHelpWidth: () => width,
      getOutHasColors: () => false,
    })
    command.commands.forEach(prepare)
  }
  prepare(root)
  try {
    root.parse([...names, flag], { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode !== 0) throw error
  }
  return text
}

/** Returns the names of a command and of all its subcommands. */
function allCommands(command: Command, names: readonly string[] = []): string[][] {
  const inner = command.commands.flatMap((child) => allCommands(child, [...names, child.name()]))
  return [[...names], ...inner]
}

test('help fits terminals of 80 and 40 columns, and a screen at 80', (t) => {
  const root = program()
  for (const names of allCommands(root)) {
    for (const width of [80, 40]) {
      const lines = help(names, width, { root }).trimEnd().split('\n')
      t.true(lines.length > 5, names.join(' '))
      const tooLong = lines.filter((line) => line.length > width && line.trim().includes(' '))
      // The command line of an example cannot always be broken.
      t.deepEqual(
        tooLong.filter((line) => !/kindling|^ {6}-|\\$/.test(line)),
        [],
        `${names.join(' ')} at ${width}`,
      )
      if (width === 80) t.true(lines.length <= 70, `${names.join(' ')}: ${lines.length} lines`)
    }
  }
})

test('train shows its common options in groups, and all of them with --help-all', (t) => {
  const short = help(['train'], 80)
  const all = help(['train'], 80, { flag: '--help-all' })
  for (const heading of ['Data:', 'Model:', 'Optimization:', 'Run:', 'Machine:', 'General:']) {
    t.true(short.includes(`\n${heading}\n`) && all.includes(`\n${heading}\n`), heading)
  }
  const flags = (text: string): number => text.match(/^ {2}--/gm)!.length
  t.true(flags(short) > 15 && flags(short) < 30, String(flags(short)))
  for (const name of Object.keys(trainFields)) {
    t.regex(all, new RegExp(`^  --${name.replaceAll('_', '-')}\\b`, 'm'), name)
  }
  const hidden = Number(/(\d+) more options: kindling train --help-all/.exec(short)![1])
  t.is(flags(all) - flags(short), hidden)
  t.false(all.includes('more options'))
})

test('an example is broken before a flag, and stays one command', (t) => {
  const command = `kindling train --corpus book.txt --lr 1e-4 1e-3 --run 'runs/my book' | head`
  const broken = breakCommand(command, 40)
  t.true(broken.split('\n').length > 1)
  t.is(broken.replace(/ \\\n +/g, ' '), command)
  t.true(broken.split('\n').every((line) => /^(kindling| +-| +\|)/.test(line)))
  t.is(breakCommand(command, 200), command)
})
