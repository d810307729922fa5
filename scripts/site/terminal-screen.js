/**
 * Emulates just enough of a terminal for our own output: lines, carriage returns, erasing, moving
 * up, and the colours of SGR. Turns a recorded session into HTML.
 */

/** Colours 30 to 37 and 90 to 97 on a dark ground. */
const COLOURS = [
  '#000',
  '#e06c75',
  '#98c379',
  '#e5c07b',
  '#61afef',
  '#c678dd',
  '#56b6c2',
  '#d7dae0',
]
const BRIGHT = ['#7f848e', '#ef8b92', '#b1d69a', '#f0d197', '#84c3f7', '#d79be8', '#7fd0d8', '#fff']

// oxlint-disable-next-line no-control-regex -- escape sequences are what is parsed here.
const TOKEN = /\x1b\[([\d;?]*)([A-Za-z])|\x1b\][^\x07]*\x07|[^]/gu

class Screen {
  #rows = [[]]
  #row = 0
  #column = 0
  #style = {}

  constructor(columns) {
    this.columns = columns
  }

  write(text) {
    for (const [token, parameters, final] of text.matchAll(TOKEN)) {
      if (final !== undefined) this.#control(final, parameters)
      else if (token === '\r') this.#column = 0
      else if (token === '\n') this.#move(this.#row + 1)
      else if (token >= ' ') this.#put(token)
    }
  }

  #put(character) {
    if (this.#column === this.columns) {
      this.#column = 0
      this.#move(this.#row + 1)
    }
    this.#rows[this.#row][this.#column++] = { character, ...this.#style }
  }

  #move(row) {
    this.#row = Math.max(0, row)
    while (this.#rows.length <= this.#row) this.#rows.push([])
  }

  #control(final, parameters) {
    const count = Number(parameters || 1)
    if (final === 'A') this.#move(this.#row - count)
    else if (final === 'B') this.#move(this.#row + count)
    else if (final === 'G') this.#column = count - 1
    else if (final === 'K')
      this.#rows[this.#row].length = Math.min(this.#rows[this.#row].length, this.#column)
    else if (final === 'J') {
      this.#control('K', '')
      this.#rows.length = this.#row + 1
    } else if (final === 'm') this.#colour(parameters.split(';').map(Number))
  }

  #colour(codes) {
    for (const code of codes) {
      if (code === 0) this.#style = {}
      else if (code === 1) this.#style = { ...this.#style, bold: true }
      else if (code === 2) this.#style = { ...this.#style, dim: true }
      else if (code === 22) this.#style = { ...this.#style, bold: false, dim: false }
      else if (code === 39) this.#style = { ...this.#style, colour: undefined }
      else if (code >= 30 && code <= 37)
        this.#style = { ...this.#style, colour: COLOURS[code - 30] }
      else if (code >= 90 && code <= 97) this.#style = { ...this.#style, colour: BRIGHT[code - 90] }
    }
  }

  /** Returns the rows as HTML. */
  html() {
    const cell = ({ character, colour, bold, dim } = { character: ' ' }) => {
      const escaped = character.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`)
      const style = [
        colour && `color:${colour}`,
        bold && 'font-weight:bold',
        dim && 'opacity:.65',
      ].filter(Boolean)
      return style.length > 0 ? `<span style="${style.join(';')}">${escaped}</span>` : escaped
    }
    const rows = this.#rows.map((row) => Array.from(row, cell).join(''))
    return rows.join('\n').trimEnd()
  }
}

module.exports = { Screen }
