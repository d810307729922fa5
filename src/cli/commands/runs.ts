/** `kindling runs`: lists the runs in a folder. */
import { relative } from 'node:path'
import { Command } from 'commander'
import { findRuns } from '../../runs/find'
import { inspectRun, type RunInfo } from '../../runs/inspect'
import { addExamples } from '../examples'
import { addVerbosity } from '../help'
import { count, duration } from '../../format'
import { run } from '../output'
import { table } from '../table'

const DEFAULT_FOLDER = 'runs'

const EXAMPLES = ['kindling runs', 'kindling runs runs --json']

export function runsCommand(): Command {
  const command = new Command('runs')
    .description('list the runs in a folder: state, steps, losses, time')
    .argument('[dir]', 'folder of runs', DEFAULT_FOLDER)
  addVerbosity(command)
  addExamples(command, EXAMPLES)
  return command.action(
    run(async (_flags, output, [dir = DEFAULT_FOLDER]) => {
      const infos: RunInfo[] = []
      for (const path of findRuns(dir)) infos.push((await inspectRun(path)).info)
      for (const info of infos) output.line(info)
      if (infos.length === 0) output.note(`no runs in ${dir}; start one with: kindling train`)
      else output.text(table(HEAD, infos.map(row)))
    }),
  )
}

const HEAD = ['run', 'state', '>steps', '>loss', '>val_loss', '>tokens/s', '>time', 'updated', '']

function row(info: RunInfo): string[] {
  const { totalSteps, steps, elapsedS, tokensPerSecond, updatedAt } = info
  return [
    relative('.', info.path) || '.',
    info.state,
    totalSteps === null ? String(steps) : `${steps}/${totalSteps}`,
    info.loss?.toFixed(4) ?? '-',
    info.valLoss?.toFixed(4) ?? '-',
    tokensPerSecond === null ? '-' : count(tokensPerSecond),
    elapsedS === null ? '-' : duration(elapsedS),
    updatedAt === null ? '-' : localTime(updatedAt),
    info.state === 'running' ? '' : (info.note ?? ''),
  ]
}

/** Formats an ISO date as 2026-01-31 23:59 in the local time zone. */
function localTime(iso: string): string {
  const date = new Date(iso)
  const two = (n: number): string => String(n).padStart(2, '0')
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`
}
