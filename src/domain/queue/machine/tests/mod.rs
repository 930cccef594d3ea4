//! The pure queue by table and by chance: `scene` is a queue with a hand-held clock that keeps its rows as a store would.

mod full;
mod keys;
mod random;
mod scene;
mod starts;
mod taking;
