//! Tables as `swapon --show` has them: columns below one another, or `--raw`.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table as Grid, presets};
use indicatif::BinaryBytes;

use crate::args::{Column, TableArgs};

/// How tables are shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Sizes are plain numbers.
    pub bytes: bool,
    /// Without headings.
    pub bare: bool,
    /// Cells with one space between them.
    pub raw: bool,
}

impl<C: Column> From<&TableArgs<C>> for Style {
    fn from(args: &TableArgs<C>) -> Self {
        Self { bytes: args.bytes, bare: args.noheadings, raw: args.raw }
    }
}

impl Style {
    /// A size.
    pub fn size(self, bytes: u64) -> String {
        match self.bytes {
            true => bytes.to_string(),
            false => BinaryBytes(bytes).to_string(),
        }
    }

    /// The tables of several runs, each with whose it is: that is a heading, too.
    pub fn join(self, tables: impl ExactSizeIterator<Item = (String, String)>) -> String {
        let several = tables.len() > 1;
        let named = |(whose, table)| match several && !self.bare {
            true => format!("{whose}\n{table}"),
            false => table,
        };
        tables.map(named).collect::<Vec<_>>().join(if self.bare { "" } else { "\n" })
    }
}

/// Headings and cells.
#[derive(Debug, Default)]
pub struct Table {
    /// Each with whether figures stand below it.
    headings: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One with these columns, of figures or words.
    pub fn new(headings: impl IntoIterator<Item = (String, bool)>) -> Self {
        Self { headings: headings.into_iter().collect(), rows: Vec::new() }
    }

    /// Another row, of as many cells as there are columns.
    pub fn add(&mut self, row: Vec<String>) {
        debug_assert_eq!(row.len(), self.headings.len());
        self.rows.push(row);
    }

    /// As text, a line for each row.
    pub fn text(self, style: Style) -> String {
        let headings = (!style.bare).then(|| self.headings.iter().map(|(name, _)| name.clone()).collect());
        match style.raw {
            true => headings.iter().chain(&self.rows).map(|row| raw(row)).collect(),
            false => aligned(headings, &self),
        }
    }
}

fn aligned(headings: Option<Vec<String>>, table: &Table) -> String {
    let mut grid = Grid::new();
    grid.load_preset(presets::NOTHING).add_rows(&table.rows);
    if let Some(headings) = headings {
        grid.set_header(headings);
    }
    for (column, (_, figures)) in grid.column_iter_mut().zip(&table.headings) {
        column.set_padding((0, 2));
        if *figures {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A row of words. What would end a word is written as `\x20`.
fn raw(row: &[String]) -> String {
    let word = |cell: &String| {
        let mut word = String::new();
        for c in cell.chars() {
            let _ = match c {
                ' ' | '\\' | '\x00'..='\x1f' | '\x7f' => write!(word, "\\x{:02x}", c as u32),
                c => word.write_char(c),
            };
        }
        if word.is_empty() { "-".to_owned() } else { word }
    };
    row.iter().map(word).collect::<Vec<_>>().join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Style, Table};

    fn table() -> Table {
        let mut table = Table::new([("NAME".to_owned(), false), ("SIZE".to_owned(), true)]);
        table.add(vec!["/srv/a b\\c".into(), "9".into()]);
        table.add(vec!["/x".into(), "10".into()]);
        table
    }

    #[test]
    fn figures_are_below_one_another_and_no_line_ends_in_blanks() {
        assert_eq!(table().text(Style::default()), "NAME        SIZE\n/srv/a b\\c     9\n/x            10\n");
        let bare = Style { bare: true, ..Style::default() };
        assert_eq!(table().text(bare), "/srv/a b\\c   9\n/x          10\n");
    }

    #[test]
    fn a_raw_row_has_a_word_for_each_column() {
        let raw = Style { raw: true, ..Style::default() };
        assert_eq!(table().text(raw), "NAME SIZE\n/srv/a\\x20b\\x5cc 9\n/x 10\n");
        let mut table = table();
        table.add(vec![String::new(), "1\t2".into()]);
        let text = table.text(Style { bare: true, ..raw });
        assert!(text.ends_with("\n- 1\\x092\n") && !text.contains("NAME"), "{text}");
    }

    #[test]
    fn whose_a_table_is_stands_above_it_if_there_are_several() {
        let two = || {
            [("1 (a)", "x\n"), ("2 (b)", "y\n")].map(|(whose, text)| (whose.into(), text.into())).into_iter()
        };
        assert_eq!(Style::default().join(two()), "1 (a)\nx\n\n2 (b)\ny\n");
        assert_eq!(Style::default().join(two().skip(1)), "y\n");
        assert_eq!(Style { bare: true, ..Style::default() }.join(two()), "x\ny\n");
    }
}
