#!/usr/bin/env node
/** The command line: runs the `kindling` program. */
import { CommanderError } from 'commander'
import { KindlingError } from '../errors'
import { withHyphens } from './flags'
import { EXIT } from './exit'
import { Output, reportError, usage } from './output'
import { watchStreams, write } from './streams'

/**
 * Loads the program, and with it the addon. If the addon cannot be loaded, reports it in one line.
 */
async function loadProgram(output: Output) {
  try {
    return (await import('./program')).program()
  } catch (error) {
    if (!(error instanceof KindlingError)) throw error
    reportError(error, output)
    return null
  }
}

async function main(argv: readonly string[]): Promise<void> {
  watchStreams()
  const output = new Output({
    json: argv.includes('--json'),
    verbose: argv.includes('--verbose') || argv.includes('-v'),
  })
  const program = await loadProgram(output)
  if (program === null) return
  try {
    await program.parseAsync(withHyphens(argv), { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return
    if (error.code === 'commander.help') {
      write(process.stderr, program.helpInformation())
      process.exitCode = EXIT.usage
      return
    }
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    reportError(usage(`${message}; see --help`), output)
  }
}

if (require.main === module) void main(process.argv.slice(2))
