import { createTheme, Modal, Paper, Table } from '@mantine/core';

/** What stands in properties; colours, type and space stand in theme.css, since no style element may be made by script. */
export const theme = createTheme({
  // Its shades are ours: theme.css.
  primaryColor: 'cyan',
  primaryShade: { light: 9, dark: 7 },
  cursorType: 'pointer',
  components: {
    // Locking the page's scroll would make a style element, which the page's policy refuses.
    Modal: Modal.extend({ defaultProps: { lockScroll: false, centered: true, radius: 'lg', padding: 'lg' } }),
    Paper: Paper.extend({ defaultProps: { withBorder: true, radius: 'lg', p: 'lg' } }),
    Table: Table.extend({ defaultProps: { verticalSpacing: 'sm', horizontalSpacing: 'md' } }),
  },
});
