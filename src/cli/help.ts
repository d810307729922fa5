/**
 * Lays out the help of commands for any width, with options in groups. If a command has many
 * options, `--help` shows the common ones and `--help-all` all of them.
 */
import { type Argument, type Command, Help, Option } from 'commander'
import { columnsOf } from './terminal'

/** Width of help that goes to a file or a pipe. */
const DEFAULT_WIDTH = 80
/** At smaller widths, a description goes below its flag. */
const MIN_TWO_COLUMNS = 64
/** Widest column of flags; a longer flag gets a line of its own. */
const MAX_TERM_WIDTH = 26
/** Indentation of a description below its flag. */
const BELOW = 6

/** Heading of the flags that every command has. */
const GENERAL = 'General:'

class CommandHelp extends Help {
  override minWidthToWrap = 20

  override padWidth(command: Command, helper: Help): number {
    return Math.min(super.padWidth(command, helper), MAX_TERM_WIDTH)
  }

  /** Returns the name alone: the usage line of a command shows its arguments. */
  override subcommandTerm(command: Command): string {
    return command.name()
  }

  /**
   * Returns the description alone: it already names the choices and the default where they matter.
   */
  override optionDescription(option: Option): string {
    return option.description
  }

  override argumentDescription(argument: Argument): string {
    return argument.description
  }

  override formatItem(term: string, termWidth: number, description: string, helper: Help): string {
    const width = helper.helpWidth ?? DEFAULT_WIDTH
    const isNarrow = width < MIN_TWO_COLUMNS
    if (description === '' || (!isNarrow && helper.displayWidth(term) <= termWidth)) {
      return super.formatItem(term, termWidth, description, helper)
    }
    const indent = isNarrow ? BELOW : termWidth + 4
    const lines = helper.boxWrap(description, width - indent).split('\n')
    return [`  ${term}`, ...lines.map((line) => ' '.repeat(indent) + line)].join('\n')
  }

  override styleTitle(title: string): string {
    return `\x1b[1m${title}\x1b[22m`
  }
}

/** Lays out the help of a command and of its subcommands. */
export function layOutHelp(command: Command): void {
  command.configureOutput({ getOutHelpWidth: () => columnsOf(process.stdout) ?? DEFAULT_WIDTH })
  command.createHelp = () => Object.assign(new CommandHelp(), command.configureHelp())
  command.addHelpOption(new Option('-h, --help', 'print this help').helpGroup(GENERAL))
  if (command.commands.length > 0) {
    for (const option of command.options) option.helpGroup(GENERAL)
    command.helpCommand(false)
  }
  for (const child of command.commands) layOutHelp(child)
}

/** Adds `--json`, `--quiet` and `--verbose`. */
export function addVerbosity(command: Command): Command {
  const flags = [
    ['--json', 'print JSON lines to stdout, everything else to stderr'],
    ['-q, --quiet', 'print results and errors only'],
    ['-v, --verbose', 'also print where an error is explained'],
  ] as const
  for (const [flag, description] of flags) {
    command.addOption(new Option(flag, description).helpGroup(GENERAL))
  }
  return command
}

/** Hides all but the common options from `--help`, and adds `--help-all`. */
export function showCommonFirst(command: Command, common: ReadonlySet<string>): Command {
  for (const option of command.options) option.hideHelp(!common.has(option.attributeName()))
  command.addOption(new Option('--help-all', 'print the help of all options').helpGroup(GENERAL))
  command.on('option:help-all', () => {
    for (const option of command.options) option.hideHelp(false)
    command.help()
  })
  return command.addHelpText('after', () => {
    const hidden = command.options.filter((option) => option.hidden).length
    return hidden === 0 ? '' : `\n${hidden} more options: ${pathOf(command)} --help-all`
  })
}

/** Returns the names of a command and its parents, such as `kindling tokenizer train`. */
export function pathOf(command: Command): string {
  const { parent } = command
  return parent === null ? command.name() : `${pathOf(parent)} ${command.name()}`
}

/** Adds text, and commands under a title, to the end of a command's help. */
export function addClosing(
  command: Command,
  { notes, title, examples }: { notes: string; title: string; examples: readonly string[] },
): Command {
  return command.addHelpText('after', () => {
    const width = command.configureOutput().getOutHelpWidth?.() ?? DEFAULT_WIDTH
    const helper = command.createHelp()
    const text = notes === '' ? [] : ['', helper.boxWrap(notes, width)]
    const lines = examples.map((example) => `  ${breakCommand(example, width - 2)}`)
    return [...text, '', helper.styleTitle(`${title}:`), ...lines].join('\n')
  })
}

/**
 * Breaks a long command line with backslashes before flags and pipes, so that a shell still reads
 * it as one.
 */
export function breakCommand(command: string, width: number): string {
  const words = command.match(/(?:'[^']*'|"[^"]*"|\S)+/g) ?? []
  const parts: string[] = []
  for (const word of words) {
    const last = parts.length - 1
    if (last < 0 || /^[-|]./.test(word) || word === '|') parts.push(word)
    else parts[last] += ` ${word}`
  }
  return parts
    .slice(1)
    .reduce(
      ({ text, length }, part) =>
        length + 1 + part.length > width - 2
          ? { text: `${text} \\\n      ${part}`, length: 4 + part.length }
          : { text: `${text} ${part}`, length: length + 1 + part.length },
      { text: parts[0] ?? '', length: parts[0]?.length ?? 0 },
    ).text
}
