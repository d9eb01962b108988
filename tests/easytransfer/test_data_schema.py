import pytest

from easytransfer.data.schema import Column, parse_schema
from easytransfer.errors import ConfigError


def test_columns_in_order_with_blanks_and_round_trip():
    schema = parse_schema(" content:str:1, label : int : 1,ids:int:*,vec:float:128,raw:base64:4 ")
    assert schema.names == ["content", "label", "ids", "vec", "raw"]
    assert schema["ids"] == Column("ids", "int", None) and schema[3].length == 128
    assert str(schema) == "content:str:1,label:int:1,ids:int:*,vec:float:128,raw:base64:4"
    assert parse_schema(str(schema)) == schema
    assert "ids" in schema and "nope" not in schema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "inputSchema is empty"),
        ("a:str", "malformed column; got 'a:str'; accepted: name:type:length"),
        ("a:str:1,,b:str:1", "malformed column; got ''"),
        ("1a:str:1", "invalid column name; got '1a'"),
        ("a-b:str:1", "invalid column name"),
        ("a:srt:1", "'a' has an unknown type; got 'srt'; accepted: int, float, str, base64, image; did you mean str?"),
        ("a:string:1", "did you mean str?"),
        ("a:int64:1", "did you mean int?"),
        ("a:str:0", "'a' has an invalid length; got '0'"),
        ("a:str:-1", "invalid length"),
        ("a:str:1.5", "invalid length"),
        ("a:str:²", "invalid length"),
        ("a:str:1,b:int:1,a:int:1", "declares column 'a' 2 times"),
    ],
)
def test_errors_say_what_is_accepted(text, message):
    with pytest.raises(ConfigError) as error:
        parse_schema(text)
    assert message in str(error.value)


def test_missing_column_lists_the_declared_ones_and_the_nearest():
    with pytest.raises(ConfigError) as error:
        parse_schema("content:str:1,label:str:1").require(["lable"])
    assert "column 'lable' is not in the input schema; accepted: content, label; did you mean label?" in str(
        error.value
    )
