/** The report of `gpu-check run`: report.json is complete, report.md is for people. */
const fs = require('node:fs')
const path = require('node:path')

function table(figures) {
  const rows = Array.isArray(figures) ? figures : [figures]
  const columns = [...new Set(rows.flatMap(Object.keys))]
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...rows.map((row) => line(columns.map((c) => row[c] ?? ''))),
  ]
}

function markdown({ emulated, stages }) {
  const lines = ['# GPU check', '']
  if (emulated) lines.push('Over an emulated GPU: nothing here says anything about speed.', '')
  for (const { title, seconds, checks } of stages) {
    lines.push(`## ${title} (${seconds.toFixed(0)} s)`, '')
    for (const { claim, state, detail, figures } of checks) {
      const text = detail.trim()
      const long = text.includes('\n')
      lines.push(`- ${state}: ${claim}${text && !long ? `: ${text}` : ''}`)
      if (long) lines.push('', '```', text, '```', '')
      if (figures) lines.push('', ...table(figures), '')
    }
    lines.push('')
  }
  return lines.join('\n')
}

function write(folder, report) {
  fs.mkdirSync(folder, { recursive: true })
  fs.writeFileSync(path.join(folder, 'report.json'), `${JSON.stringify(report, null, 1)}\n`)
  fs.writeFileSync(path.join(folder, 'report.md'), markdown(report))
}

module.exports = { write }
