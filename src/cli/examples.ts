/**
 * The examples at the end of a command's help. Every one of them runs in __test__/examples.spec.ts.
 */
import type { Command } from 'commander'
import { addClosing } from './help'

const EXAMPLES = new WeakMap<Command, readonly string[]>()

/** Adds examples, and notes above them, to the end of a command's help. */
export function addExamples(
  command: Command,
  examples: readonly string[],
  { notes = '', title = 'Examples' }: { notes?: string; title?: string } = {},
): Command {
  EXAMPLES.set(command, examples)
  return addClosing(command, { notes, title, examples })
}

/** Returns the examples of a command and of all its subcommands, in the order of the help. */
export function allExamples(command: Command): string[] {
  return [...(EXAMPLES.get(command) ?? []), ...command.commands.flatMap(allExamples)]
}
