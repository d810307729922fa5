#!/usr/bin/env node
/** The command line: the `kindling` program. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError } from 'commander'
import { commands } from './commands'
import { addExamples } from './examples'
import { withHyphens } from './flags'
import { EXIT } from './exit'
import { Output, reportError, usage } from './output'
import { watchStreams, write } from './streams'

function version(): string {
  const text = readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

/** Returns the program with all its commands. */
export function program(): Command {
  const kindling = new Command('kindling')
    .description('Train Transformer language models inside Node.js.')
    .version(version())
    .showSuggestionAfterError()
  addExamples(kindling, ['kindling quickstart', 'kindling train --help'], { title: 'First steps' })
  for (const command of commands()) kindling.addCommand(command)
  throwUsageErrors(kindling)
  return kindling
}

/** Makes commander throw usage errors instead of printing them and exiting. */
function throwUsageErrors(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => {} })
  for (const child of command.commands) throwUsageErrors(child)
}

async function main(argv: readonly string[]): Promise<void> {
  watchStreams()
  try {
    await program().parseAsync(withHyphens(argv), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return
    if (error.code === 'commander.help') {
      write(process.stderr, program().helpInformation())
      process.exitCode = EXIT.usage
      return
    }
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    reportError(usage(`${message}; see --help`), new Output(argv.includes('--json')))
  }
}

if (require.main === module) void main(process.argv.slice(2))
