/**
 * Generates shell completion from the tree of commands: their names, their flags, and the choices
 * of flags and arguments. Everything else completes to file names.
 */
import type { Command, Option } from 'commander'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof SHELLS)[number]

/** Returns the script that makes a shell complete the commands of `program`. */
export function completionScript(program: Command, shell: Shell): string {
  const places = placesOf(program, [])
  if (shell === 'fish') return fish(program.name(), places)
  const body = bash(program.name(), places)
  return shell === 'bash' ? body : `${ZSH_HEAD}${body}`
}

/** A command with the names that lead to it. */
interface Place {
  names: string[]
  command: Command
}

function placesOf(command: Command, names: string[]): Place[] {
  const inner = command.commands.flatMap((child) => placesOf(child, [...names, child.name()]))
  return [{ names, command }, ...inner]
}

/** Makes zsh run the completion written for bash. */
const ZSH_HEAD = `#compdef kindling
autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
`

function bash(program: string, places: readonly Place[]): string {
  const inner = places.filter(({ names }) => names.length > 0)
  const steps = inner.map(({ names }) => `'${names.slice(0, -1).join(' ')}/${names.at(-1)}'`)
  const flags = places.map(
    ({ names, command }) => `    '${names.join(' ')}') flags='${flagsOf(command).join(' ')}' ;;`,
  )
  const words = places
    .map(({ names, command }) => ({ key: names.join(' '), list: wordsOf(command) }))
    .filter(({ list }) => list.length > 0)
    .map(({ key, list }) => `    '${key}') words='${list.join(' ')}' ;;`)
  const values = places.flatMap(({ names, command }) =>
    command.options
      .filter((option) => option.argChoices)
      .map((option) => `    '${names.join(' ')} ${option.long}') words='${choicesOf(option)}' ;;`),
  )
  return `# Completion of ${program} in bash: source this file.
_${program}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  local at='' flags='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$at/\${COMP_WORDS[i]}" in
      ${steps.join(' | ')})
        at="\${at:+$at }\${COMP_WORDS[i]}" ;;
    esac
  done
  case "$at" in
${flags.join('\n')}
  esac
  case "$at" in
${words.join('\n')}
  esac
  case "$at $prev" in
${values.join('\n')}
    *' --'*) words='' ;;
  esac
  COMPREPLY=()
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  elif [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o default -F _${program} ${program}
`
}

function fish(program: string, places: readonly Place[]): string {
  const parents = places.filter(({ command }) => command.commands.length > 0 && command.parent)
  const groups = parents.map(({ names }) => names.join(' ')).join(' ')
  const lines = places.flatMap(({ names, command }) => {
    const seen = names.map((name) => `__fish_seen_subcommand_from ${name}`)
    const isTop = names.length === 1 && command.commands.length === 0
    const here = isTop ? [...seen, `not __fish_seen_subcommand_from ${groups}`] : seen
    const subcommands = command.commands.map((child) => child.name())
    const before =
      names.length === 0
        ? '__fish_use_subcommand'
        : [...seen, `not __fish_seen_subcommand_from ${subcommands.join(' ')}`].join('; and ')
    const condition = here.length === 0 ? '__fish_use_subcommand' : here.join('; and ')
    const complete = (rest: string): string => `complete -c ${program} -n '${condition}' ${rest}`
    return [
      ...command.commands.map(
        (child) =>
          `complete -c ${program} -n '${before}' -f -a ${child.name()} -d ${quoted(child)}`,
      ),
      ...argumentChoices(command).map((choice) => complete(`-f -a ${choice}`)),
      ...command.options.map((option) => complete(fishOption(option))),
    ]
  })
  return `# Completion of ${program} in fish: source this file.\n${lines.join('\n')}\n`
}

function fishOption(option: Option): string {
  const name = `-l ${option.long!.slice(2)}${option.short ? ` -s ${option.short.slice(1)}` : ''}`
  const isSwitch = !option.required && !option.optional
  const values = option.argChoices ? `-x -a '${choicesOf(option)}'` : '-r -F'
  return `${name} ${isSwitch ? '' : `${values} `}-d ${quoted({ description: () => option.description })}`
}

/** Quotes a description for fish. */
function quoted(command: { description: () => string }): string {
  return `'${command.description().replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}

function flagsOf(command: Command): string[] {
  return [...command.options.map((option) => option.long!), '--help']
}

/** Names of subcommands, or choices of an argument. */
function wordsOf(command: Command): string[] {
  return [...command.commands.map((child) => child.name()), ...argumentChoices(command)]
}

function argumentChoices(command: Command): readonly string[] {
  return command.registeredArguments.flatMap((argument) => argument.argChoices ?? [])
}

function choicesOf(option: Option): string {
  return (option.argChoices ?? []).join(' ')
}
