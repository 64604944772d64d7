"""Templates of made word problems, and the words that go into them.

One template: the question, its prefix equation ("- 0 1" for "- number0 number1"), the result as a sentence with an
infix expression, written apart from the equation so that one checks the other, and further prefix expressions that
must come out as positive whole numbers for the story to make sense.

{he}, {him}, {his} is {A}. {got}/{get} and {lost}/{lose} are one verb each. TEST asks the other way round, has numbers
that do not matter and other wordings, but no word that TRAIN does not use.
"""

from __future__ import annotations


def _list(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


SHE = _list(
    "Ann, Mary, Julia, Sara, Emma, Lisa, Nina, Olga, Ruth, Vera, Zoe, Alice, Clara, Diana, Eva, Helen"
)
HE = _list("Tom, Ben, Carl, David, Eric, Frank, Hugo, Ivan, Jack, Leo, Mark, Noah, Oscar, Paul, Sam, Victor")
THINGS = _list(
    "apple, pencil, marble, sticker, book, card, shell, stamp, orange, cookie, balloon, flower, pear, coin, button, "
    "ticket, egg, carrot, cupcake, doll, kite, lemon, plum, ribbon, rock, spoon, bottle, candle, crayon, magnet"
)
BAGS = _list("bag, basket, jar, crate, packet, drawer, bucket, case")
PLACES = _list("garden, park, kitchen, library, school, shop, classroom, market, barn, hall")
DAYS = _list("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
COLOURS = _list("red, blue, green, yellow, white, black")
GAINS = _list("bought buy, found find, collected collect, picked pick, made make, won win")
LOSSES = _list("lost lose, sold sell, used use, broke break, dropped drop")

TRAIN = (
    # -- together
    (
        "{A} has number0 {things}. {B} gives {him} number1 more. How many {things} does {A} have now?",
        "+ 0 1",
        "{A} has number0 + number1 {things} now.",
    ),
    (
        "{A} {got} number0 {things} and {B} {got} number1. How many {things} did they {get} in all?",
        "+ 0 1",
        "They {got} number0 + number1 {things} in all.",
    ),
    (
        "There are number0 {things} in the {place}. {A} brings number1 more {things}. "
        "How many {things} are in the {place} now?",
        "+ 0 1",
        "There are number0 + number1 {things} in the {place} now.",
    ),
    (
        "{A} {got} number0 {red} {things} and number1 {blue} {things}. "
        "How many {things} did {he} {get} in total?",
        "+ 0 1",
        "{He} {got} number0 + number1 {things} in total.",
    ),
    (
        "{A} {got} number0 {things} on {day} and number1 {things} on {later}. "
        "How many {things} did {he} {get} altogether?",
        "+ 0 1",
        "{He} {got} number0 + number1 {things} altogether.",
    ),
    (
        "{A} {lost} number0 {things} on {day} and number1 on {later}. How many {things} did {he} {lose} in total?",
        "+ 0 1",
        "{He} {lost} number0 + number1 {things} in total.",
    ),
    (
        "{B} has number0 {things}. {A} has number1 more {things} than {B}. How many {things} does {A} have?",
        "+ 0 1",
        "{A} has number0 + number1 {things}.",
    ),
    (
        "{A} {lost} number0 {things}. {He} has number1 {things} left. "
        "How many {things} did {he} have at first?",
        "+ 0 1",
        "{He} had number0 + number1 {things} at first.",
    ),
    (
        "{A} has number0 {things}, {B} has number1 and {C} has number2. "
        "How many {things} do they have together?",
        "+ + 0 1 2",
        "They have number0 + number1 + number2 {things} together.",
    ),
    # -- apart
    (
        "{A} had number0 {things}. {He} {lost} number1 of them. How many {things} does {he} have left?",
        "- 0 1",
        "{He} has number0 - number1 {things} left.",
    ),
    (
        "There were number0 {things} in the {place}. {A} took number1 of them home. "
        "How many {things} are still in the {place}?",
        "- 0 1",
        "There are number0 - number1 {things} still in the {place}.",
    ),
    (
        "{A} has number0 {things} and {B} has number1. How many more {things} does {A} have than {B}?",
        "- 0 1",
        "{A} has number0 - number1 more {things} than {B}.",
    ),
    (
        "{A} has number0 {things}. {B} has number1 fewer {things} than {A}. How many {things} does {B} have?",
        "- 0 1",
        "{B} has number0 - number1 {things}.",
    ),
    (
        "{A} wants to {get} number0 {things}. So far {he} {got} number1. "
        "How many more {things} does {he} need?",
        "- 0 1",
        "{He} needs number0 - number1 more {things}.",
    ),
    (
        "There are number0 {things} in a {bag}. number1 of them are {red} and the rest are {blue}. "
        "How many {things} are {blue}?",
        "- 0 1",
        "number0 - number1 {things} are {blue}.",
    ),
    (
        "{A} had number0 {things}. {B} gave {him} some more. Now {A} has number1 {things}. "
        "How many {things} did {B} give {him}?",
        "- 1 0",
        "{B} gave {him} number1 - number0 {things}.",
    ),
    (
        "{A} and {B} have number0 {things} together. {A} has number1 of them. "
        "How many {things} does {B} have?",
        "- 0 1",
        "{B} has number0 - number1 {things}.",
    ),
    (
        "{A} had some {things}. {B} gave {him} number0 more. Now {A} has number1 {things}. "
        "How many {things} did {A} have at first?",
        "- 1 0",
        "{A} had number1 - number0 {things} at first.",
    ),
    (
        "{A} {got} number0 {things} on {day} and number1 on {later}. "
        "How many more {things} did {he} {get} on {day} than on {later}?",
        "- 0 1",
        "{He} {got} number0 - number1 more {things} on {day} than on {later}.",
    ),
    # -- times
    (
        "{A} has number0 {bags} of {things}. There are number1 {things} in each {bag}. "
        "How many {things} does {A} have?",
        "* 0 1",
        "{A} has number0 * number1 {things}.",
    ),
    (
        "{A} bought number0 {things}. Each {thing} cost number1 dollars. How many dollars did {he} spend?",
        "* 0 1",
        "{He} spent number0 * number1 dollars.",
    ),
    (
        "{A} {got} number0 {things} each day. How many {things} did {he} {get} in number1 days?",
        "* 0 1",
        "{He} {got} number0 * number1 {things}.",
    ),
    (
        "{A} gave number0 {things} to each of {his} number1 friends. "
        "How many {things} did {he} give them in total?",
        "* 0 1",
        "{He} gave them number0 * number1 {things} in total.",
    ),
    (
        "There are number0 tables in the {place}. Each table has number1 {things}. "
        "How many {things} are there on the tables?",
        "* 0 1",
        "There are number0 * number1 {things} on the tables.",
    ),
    (
        "{B} has number0 {things}. {A} has number1 times as many. How many {things} does {A} have?",
        "* 0 1",
        "{A} has number0 * number1 {things}.",
    ),
    (
        "{A} puts number0 {things} into each {bag}. {He} fills number1 {bags}. "
        "How many {things} does {he} take?",
        "* 0 1",
        "{He} takes number0 * number1 {things}.",
    ),
    # -- shared
    (
        "{A} has number0 {things}. {He} puts them into number1 {bags} with the same number of {things} in "
        "each. How many {things} are in each {bag}?",
        "/ 0 1",
        "There are number0 / number1 {things} in each {bag}.",
    ),
    (
        "{A} has number0 {things}. {He} puts number1 {things} into each {bag}. "
        "How many {bags} does {he} need?",
        "/ 0 1",
        "{He} needs number0 / number1 {bags}.",
    ),
    (
        "{A} shared number0 {things} equally among number1 friends. How many {things} did each friend get?",
        "/ 0 1",
        "Each friend got number0 / number1 {things}.",
    ),
    (
        "{A} paid number0 dollars for {things} that cost number1 dollars each. "
        "How many {things} did {he} buy?",
        "/ 0 1",
        "{He} bought number0 / number1 {things}.",
    ),
    (
        "{A} {got} number0 {things} in number1 days, the same number each day. "
        "How many {things} did {he} {get} each day?",
        "/ 0 1",
        "{He} {got} number0 / number1 {things} each day.",
    ),
    (
        "{A} has number0 {things}, number1 times as many as {B}. How many {things} does {B} have?",
        "/ 0 1",
        "{B} has number0 / number1 {things}.",
    ),
    (
        "number0 friends share number1 {things} equally. How many {things} does each friend get?",
        "/ 1 0",
        "Each friend gets number1 / number0 {things}.",
    ),
    (
        "{A} bought number0 {things} for number1 dollars in all. How many dollars did each {thing} cost?",
        "/ 1 0",
        "Each {thing} cost number1 / number0 dollars.",
    ),
    # -- two steps
    (
        "{A} had number0 {things}. {He} {lost} number1 and then {got} number2 more. "
        "How many {things} does {he} have now?",
        "+ - 0 1 2",
        "{He} has number0 - number1 + number2 {things} now.",
    ),
    (
        "{A} had number0 {things}. {He} {got} number1 more and then {lost} number2. "
        "How many {things} does {he} have now?",
        "- + 0 1 2",
        "{He} has number0 + number1 - number2 {things} now.",
    ),
    (
        "{A} had number0 {things}. {He} {lost} number1 of them and put the rest equally into number2 {bags}. "
        "How many {things} are in each {bag}?",
        "/ - 0 1 2",
        "There are ( number0 - number1 ) / number2 {things} in each {bag}.",
    ),
    (
        "{A} has number0 {red} {things} and number1 {blue} {things}. {He} puts number2 {things} into each "
        "{bag}. How many {bags} does {he} need?",
        "/ + 0 1 2",
        "{He} needs ( number0 + number1 ) / number2 {bags}.",
    ),
    (
        "{A} had number0 {bags} with number1 {things} in each. {He} {lost} number2 {things}. "
        "How many {things} does {he} have left?",
        "- * 0 1 2",
        "{He} has number0 * number1 - number2 {things} left.",
    ),
    (
        "{A} has number0 {things} and number1 {bags} with number2 {things} in each. "
        "How many {things} does {A} have in all?",
        "+ 0 * 1 2",
        "{A} has number0 + number1 * number2 {things} in all.",
    ),
    (
        "{A} had number0 dollars. {He} bought number1 {things} for number2 dollars each. "
        "How many dollars does {he} have left?",
        "- 0 * 1 2",
        "{He} has number0 - number1 * number2 dollars left.",
    ),
    (
        "{A} needs number0 {things} and has number1. Each {thing} costs number2 dollars. "
        "How many dollars does {he} need for the rest?",
        "* - 0 1 2",
        "{He} needs ( number0 - number1 ) * number2 dollars for the rest.",
    ),
    (
        "{A} sold number0 {things} on {day} and number1 on {later}. Each {thing} cost number2 dollars. "
        "How many dollars did {he} get?",
        "* + 0 1 2",
        "{He} got ( number0 + number1 ) * number2 dollars.",
    ),
    (
        "{A} has number0 {things}. {B} has number1 more than {A}. How many {things} do they have together?",
        "+ 0 + 0 1",
        "They have number0 + number0 + number1 {things} together.",
    ),
    (
        "{A} has number0 {things}. {B} has number1 fewer than {A}. How many {things} do they have together?",
        "+ 0 - 0 1",
        "They have number0 + number0 - number1 {things} together.",
    ),
    (
        "{A} had number0 {things}. {He} gave number1 to {B} and number2 to {C}. "
        "How many {things} does {he} have left?",
        "- - 0 1 2",
        "{He} has number0 - number1 - number2 {things} left.",
    ),
    # -- a number that does not matter
    (
        "{A} has number0 {things} and number1 {others}. {B} gives {him} number2 more {things}. "
        "How many {things} does {A} have now?",
        "+ 0 2",
        "{A} has number0 + number2 {things} now.",
    ),
    (
        "{A} had number0 {things} and number1 {others}. {He} {lost} number2 {things}. "
        "How many {things} does {he} have left?",
        "- 0 2",
        "{He} has number0 - number2 {things} left.",
    ),
    (
        "{A} has number0 {bags}. Each {bag} has number1 {things}. {B} has number2 {others}. "
        "How many {things} does {A} have?",
        "* 0 1",
        "{A} has number0 * number1 {things}.",
    ),
    (
        "{A} put number0 {things} equally into number1 {bags} and has number2 {others} at home. "
        "How many {things} are in each {bag}?",
        "/ 0 1",
        "There are number0 / number1 {things} in each {bag}.",
    ),
    (
        "There are number0 tables in the {place}. {A} {got} number1 {things} and {B} {got} number2. "
        "How many {things} did they {get} in all?",
        "+ 1 2",
        "They {got} number1 + number2 {things} in all.",
    ),
    (
        "{A} is number0 years old. {He} has number1 {things} and {B} has number2. "
        "How many more {things} does {A} have than {B}?",
        "- 1 2",
        "{A} has number1 - number2 more {things} than {B}.",
    ),
)
