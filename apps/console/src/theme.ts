import { createTheme, Modal, Tooltip } from '@mantine/core';

export const theme = createTheme({
  primaryColor: 'cyan',
  primaryShade: { light: 9, dark: 7 },
  cursorType: 'pointer',
  components: {
    // Locking the page's scroll would make a style element, which the page's policy refuses.
    Modal: Modal.extend({ defaultProps: { lockScroll: false, centered: true, radius: 'md' } }),
    Tooltip: Tooltip.extend({ defaultProps: { withArrow: true, multiline: true, maw: 340, openDelay: 150 } }),
  },
});
