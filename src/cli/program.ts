/** The `kindling` program: all its commands. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { commands } from './commands'
import { addExamples } from './examples'
import { layOutHelp } from './help'
import { outliveTerminal } from './interrupt'

function version(): string {
  const text = readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

/** Returns the program with all its commands. */
export function program(): Command {
  const kindling = new Command('kindling')
    .description('Train Transformer language models inside Node.js.')
    .version(version(), '-V, --version', 'print the version')
  addExamples(kindling, ['kindling quickstart', 'kindling train --help'], { title: 'First steps' })
  for (const command of commands()) kindling.addCommand(command)
  layOutHelp(kindling)
  throwUsageErrors(kindling)
  kindling.hook('preAction', outliveTerminal)
  return kindling
}

/** Makes commander throw usage errors instead of printing them and exiting. */
function throwUsageErrors(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => {} })
  for (const child of command.commands) throwUsageErrors(child)
}
