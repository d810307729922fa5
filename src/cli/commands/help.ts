/** `kindling help`: prints the help of a command. */
import { Command, CommanderError } from 'commander'
import { nearest } from '../../nearest'
import { addExamples } from '../examples'
import { pathOf } from '../help'

export function helpCommand(): Command {
  const command = new Command('help')
    .description('print the help of a command')
    .argument('[command...]', 'names of the command, such as tokenizer train')
  addExamples(command, ['kindling help tokenizer train'])
  return command.action((names: string[]) => {
    let found = command.parent!
    for (const name of names) found = subcommand(found, name)
    found.outputHelp()
  })
}

function subcommand(parent: Command, name: string): Command {
  const found = parent.commands.find((child) => child.name() === name)
  if (found) return found
  const names = parent.commands.map((child) => child.name())
  const hint = nearest(name, names)
  const guess = hint === null ? '' : ` (Did you mean ${hint}?)`
  throw new CommanderError(
    2,
    'commander.unknownCommand',
    `${pathOf(parent)} has no command '${name}'${guess}`,
  )
}
