/** The types of uPlot, which the build copies from its npm package beside the page. */
import uPlot from 'uplot'
// oxlint-disable-next-line import/no-default-export -- uPlot's own
export default uPlot
