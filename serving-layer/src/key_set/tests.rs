use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::{SessionContext, cast, col, in_list, lit};
use proptest::prelude::*;
use stratus_seam::encoding::encode_rows;

use super::*;

const MINUTE: i64 = 60_000_000;

fn keys() -> Vec<Key> {
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let key = |place: usize, kind: DataType, grid| Key { name: format!("g{place}"), kind, grid };
    let grid = Some(KeyGrid { step: MINUTE, phase: 7 });
    vec![
        key(0, DataType::Utf8, None),
        key(1, DataType::Int32, None),
        key(2, zoned, grid),
        key(3, DataType::Boolean, None),
        key(4, DataType::Decimal128(10, 2), None),
        key(5, DataType::Date32, None),
        key(6, DataType::Float64, None),
    ]
}

/// A few values of each column, so that filters often meet rows. 0 is NULL.
fn value(column: usize, pick: i64) -> ScalarValue {
    let some = (pick != 0).then_some(pick);
    match column {
        0 => ScalarValue::Utf8(some.map(|n| ["", "a\"b", "ü", "null"][n as usize % 4].to_owned())),
        1 => ScalarValue::Int32(some.map(|n| n as i32 - 3)),
        2 => ScalarValue::TimestampMicrosecond(some.map(|n| (n - 3) * MINUTE + 7), Some("UTC".into())),
        3 => ScalarValue::Boolean(some.map(|n| n % 2 == 0)),
        4 => ScalarValue::Decimal128(some.map(|n| i128::from(n) * 50 - 100), 10, 2),
        5 => ScalarValue::Date32(some.map(|n| n as i32 - 3)),
        _ => ScalarValue::Float64(some.map(|n| [0.0, -0.0, f64::NAN, 1.5][n as usize % 4])),
    }
}

fn rows(picks: &[[i64; 7]]) -> RecordBatch {
    let of = |column: usize| picks.iter().map(move |row| value(column, row[column]));
    macro_rules! column {
        ($at:expr, $variant:ident, $array:ty) => {
            of($at)
                .map(|value| match value {
                    ScalarValue::$variant(value, ..) => value,
                    other => panic!("{other:?}"),
                })
                .collect::<$array>()
        };
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(column!(0, Utf8, StringArray)),
        Arc::new(column!(1, Int32, Int32Array)),
        Arc::new(column!(2, TimestampMicrosecond, TimestampMicrosecondArray).with_timezone("UTC")),
        Arc::new(column!(3, Boolean, BooleanArray)),
        Arc::new(column!(4, Decimal128, Decimal128Array).with_precision_and_scale(10, 2).unwrap()),
        Arc::new(column!(5, Date32, Date32Array)),
        Arc::new(column!(6, Float64, Float64Array)),
    ];
    let named = columns.into_iter().enumerate().map(|(at, column)| (format!("g{at}"), column, true));
    RecordBatch::try_from_iter_with_nullable(named).unwrap()
}

fn column(at: usize) -> Expr {
    Expr::Column(Column::new(Some("states"), format!("g{at}")))
}

fn leaf() -> impl Strategy<Value = Expr> {
    let operators = vec![
        Operator::Eq,
        Operator::NotEq,
        Operator::Lt,
        Operator::LtEq,
        Operator::Gt,
        Operator::GtEq,
        Operator::IsDistinctFrom,
        Operator::IsNotDistinctFrom,
    ];
    let binary =
        |left: Expr, op, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    let compared = (0_usize..7, 0_i64..8, prop::sample::select(operators), any::<bool>()).prop_map(
        move |(at, pick, op, turned)| {
            let value = lit(value(at, pick));
            if turned { binary(value, op, column(at)) } else { binary(column(at), op, value) }
        },
    );
    let listed =
        (0_usize..7, prop::collection::vec(0_i64..8, 1..6), any::<bool>()).prop_map(|(at, picks, not)| {
            in_list(column(at), picks.iter().map(|p| lit(value(at, *p))).collect(), not)
        });
    let between = (0_usize..7, 0_i64..8, 0_i64..8, any::<bool>()).prop_map(|(at, low, high, not)| {
        let (low, high) = (lit(value(at, low)), lit(value(at, high)));
        if not { column(at).not_between(low, high) } else { column(at).between(low, high) }
    });
    let null = (0_usize..7, any::<bool>())
        .prop_map(|(at, not)| if not { column(at).is_not_null() } else { column(at).is_null() });
    let truth = (0_usize..6).prop_map(|form| match form {
        0 => column(3),
        1 => column(3).is_true(),
        2 => column(3).is_false(),
        3 => column(3).is_not_true(),
        4 => column(3).is_not_false(),
        _ => column(3).is_unknown(),
    });
    // Comparisons through a cast: of wider integers, of decimals of another scale, of times with finer units.
    let casted =
        (0_usize..4, 0_i64..8, prop::sample::select(vec![Operator::Eq, Operator::Lt, Operator::GtEq]))
            .prop_map(move |(form, pick, op)| {
                let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
                let of_nanos =
                    |time: i64| ScalarValue::TimestampNanosecond(Some(time), Some("+00:00".into()));
                match form {
                    0 => binary(cast(column(1), DataType::Int64), op, lit(pick - 3)),
                    1 => binary(
                        cast(column(4), DataType::Decimal128(20, 3)),
                        op,
                        lit(ScalarValue::Decimal128(Some(i128::from(pick) * 250), 20, 3)),
                    ),
                    2 => binary(cast(column(2), nanos), op, lit(of_nanos(((pick - 3) * MINUTE + 7) * 1000))),
                    _ => binary(
                        cast(column(2), nanos),
                        op,
                        lit(of_nanos(((pick - 3) * MINUTE + 7) * 1000 + 1)),
                    ),
                }
            });
    prop_oneof![6 => compared, 3 => listed, 2 => between, 2 => null, 2 => truth, 1 => casted, 1 => any::<bool>().prop_map(lit)]
}

fn filter() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| left.and(right)),
            3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| left.or(right)),
            1 => inner.clone().prop_map(|inner| Expr::Not(Box::new(inner))),
            1 => inner.prop_map(|inner| inner.is_true()),
        ]
    })
}

/// Equalities over all columns, so that sets of keys come out.
fn narrow() -> impl Strategy<Value = Expr> {
    prop::array::uniform7(prop::collection::vec(0_i64..8, 1..4)).prop_map(|picks| {
        let columns = picks.iter().enumerate().take(6).map(|(at, picks)| {
            let list = in_list(column(at), picks.iter().map(|p| lit(value(at, *p))).collect(), false);
            if picks.contains(&0) { list.or(column(at).is_null()) } else { list }
        });
        columns.reduce(Expr::and).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_row_that_a_filter_leaves_is_missing(
        picks in prop::collection::vec(prop::array::uniform7(0_i64..8), 1..60),
        filters in prop::collection::vec(filter(), 1..3),
        narrowed in prop::option::of(narrow()),
    ) {
        let rows = rows(&picks);
        let schema = DFSchema::try_from_qualified_schema("states", rows.schema().as_ref()).unwrap();
        let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
        let filters: Vec<Expr> = filters.into_iter().chain(narrowed).collect();
        // As they are written, and as the optimizer hands them on.
        let simplifier = ExprSimplifier::new(context);
        let simplified: Vec<Expr> = filters.iter().map(|filter| simplifier.simplify(filter.clone()).unwrap()).collect();
        let session = SessionContext::new();
        // The last column is a float, which is never narrowed: the sets are of the columns before it.
        let texts = encode_rows(&rows.columns()[..6], rows.num_rows()).unwrap();
        let keys = keys();
        for filters in [filters, simplified] {
            // The rows that these filters leave, since these are what the engine applies to the rows it gets. The two
            // forms are not always alike: DataFusion's optimizer cuts the literal of `CAST(t AS timestamp(9)) < ...`
            // off to the column's microseconds.
            let all = filters.iter().cloned().reduce(Expr::and).unwrap();
            let mask = session.create_physical_expr(all, &schema).unwrap().evaluate(&rows).unwrap();
            let mask = mask.into_array(rows.num_rows()).unwrap();
            if let KeySet::Keys(found) = left_by(&filters, &keys[..6]) {
                for (row, key) in texts.iter().enumerate() {
                    let left = mask.is_valid(row) && mask.as_boolean().value(row);
                    prop_assert!(!left || found.contains(key), "{key} is missing from {found:?}, filters {filters:?}");
                }
            }
            let with_floats = left_by(&filters, &keys);
            if let KeySet::Keys(found) = with_floats {
                let texts = encode_rows(rows.columns(), rows.num_rows()).unwrap();
                for (row, key) in texts.iter().enumerate() {
                    let left = mask.is_valid(row) && mask.as_boolean().value(row);
                    prop_assert!(!left || found.contains(key), "{key} is missing from {found:?}, filters {filters:?}");
                }
            }
        }
    }
}

fn found(filters: &[Expr], keys: &[Key]) -> Vec<String> {
    match left_by(filters, keys) {
        KeySet::All => vec!["all".to_owned()],
        KeySet::Keys(keys) => keys.into_iter().collect(),
    }
}

#[test]
fn keys_are_the_product_of_their_columns() {
    let two = &keys()[..2];
    let filter = col("g0").eq(lit("a")).and(in_list(col("g1"), vec![lit(2_i32), lit(3_i32)], false));
    assert_eq!(found(&[filter], two), ["[\"a\",2]", "[\"a\",3]"]);
    let apart = [col("g1").is_null(), col("g0").eq(lit("a")).or(col("g0").eq(lit("b")))];
    assert_eq!(found(&apart, two), ["[\"a\",null]", "[\"b\",null]"]);
    let range = col("g1").gt(lit(4_i32)).and(col("g1").lt_eq(lit(6_i32)));
    assert_eq!(found(&[col("g0").eq(lit("a")), range.clone()], two), ["[\"a\",5]", "[\"a\",6]"]);
    assert_eq!(found(&[range], two), ["all"]);
    let never = [col("g0").eq(lit("a")), col("g0").eq(lit("b"))];
    assert_eq!(found(&never, two), Vec::<String>::new());
    assert_eq!(found(&[col("g0").eq(lit(ScalarValue::Utf8(None)))], two), Vec::<String>::new());
    // A column that is no key says nothing.
    assert_eq!(
        found(&[col("a0_s0").eq(lit(1_i64)), col("g0").eq(lit("a")), col("g1").eq(lit(1_i32))], two),
        ["[\"a\",1]"]
    );
}

#[test]
fn buckets_lie_on_their_grid() {
    let minute = &keys()[2..3];
    let at = |time: i64| lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())));
    let between = |low, high| [col("g2").gt_eq(at(low)), col("g2").lt(at(high))];
    assert_eq!(found(&between(0, 2 * MINUTE), minute), ["[60000007]", "[7]"]);
    assert_eq!(found(&between(8, 7 + MINUTE), minute), Vec::<String>::new());
    assert_eq!(found(&between(-MINUTE, 0), minute), ["[-59999993]"]);
    let free = &[Key { grid: None, ..minute[0].clone() }];
    assert_eq!(found(&between(0, 2 * MINUTE), free), ["all"]);
    assert_eq!(found(&between(i64::MIN, i64::MAX), minute), ["all"]);
}

#[test]
fn too_many_keys_are_all() {
    let two = &keys()[..2];
    let range = |to: i32| {
        [
            col("g1").gt_eq(lit(1_i32)),
            col("g1").lt_eq(lit(to)),
            in_list(col("g0"), vec![lit("a"), lit("b")], false),
        ]
    };
    assert_eq!(found(&range(5_000), two).len(), MOST_KEYS);
    assert_eq!(found(&range(5_001), two), ["all"]);
}
