/** The default theme with the system's fonts, so that no page loads one. */
import DefaultTheme from 'vitepress/theme-without-fonts'
import './style.css'

// oxlint-disable-next-line import/no-default-export -- VitePress reads the default export.
export default DefaultTheme
