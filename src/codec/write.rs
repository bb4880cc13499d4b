//! What a format is written through.

pub trait Emit {
    /// Whether integers beyond 64 bits are given in decimal digits; otherwise in two's complement.
    const DECIMAL: bool;

    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn clear(&mut self);
    fn null(&mut self);
    fn bool(&mut self, value: bool);
    fn int(&mut self, value: i64);
    fn big(&mut self, value: &[u8]);
    fn float(&mut self, value: f64);
    fn text(&mut self, text: &str);
    fn bytes(&mut self, bytes: &[u8]);
    fn datetime(&mut self, text: &str);
    fn list(&mut self, length: usize);
    fn item(&mut self, first: bool);
    fn end_list(&mut self);
    fn map(&mut self, length: usize);
    fn key(&mut self, key: &str, first: bool, only: bool);
    fn end_map(&mut self);
}
