"""Templates of the test part of made word problems: asked the other way round, with numbers that do not matter, in
other wordings than `_problems.TRAIN`, but in its words. See there for the form."""

from __future__ import annotations

TEST = (
    # -- the same stories, another question
    (
        "{A} has number0 {things} and {B} has number1. How many more {things} does {B} have than {A}?",
        "- 1 0",
        "{B} has number1 - number0 more {things} than {A}.",
    ),
    (
        "{A} has number0 {things}. {B} has number1 {things}. How many fewer {things} does {B} have than {A}?",
        "- 0 1",
        "{B} has number0 - number1 fewer {things} than {A}.",
    ),
    (
        "{B} gave {A} number0 {things}. Now {A} has number1. How many {things} did {A} have at first?",
        "- 1 0",
        "{A} had number1 - number0 {things} at first.",
    ),
    (
        "{A} had number0 {things}. {He} {lost} some of them. Now {he} has number1 {things} left. "
        "How many {things} did {he} {lose}?",
        "- 0 1",
        "{He} {lost} number0 - number1 {things}.",
    ),
    (
        "{A} has number0 {things}, number1 more than {B}. How many {things} does {B} have?",
        "- 0 1",
        "{B} has number0 - number1 {things}.",
    ),
    (
        "{A} has number0 {things}, number1 fewer than {B}. How many {things} does {B} have?",
        "+ 0 1",
        "{B} has number0 + number1 {things}.",
    ),
    (
        "{A} and {B} {got} number0 {things} in all. {B} {got} number1 of them. "
        "How many {things} did {A} {get}?",
        "- 0 1",
        "{A} {got} number0 - number1 {things}.",
    ),
    (
        "In the {place} are some {things}. {A} brings number0 more. Now there are number1 {things} in the "
        "{place}. How many {things} were there at first?",
        "- 1 0",
        "There were number1 - number0 {things} at first.",
    ),
    (
        "{A} has number0 {things} now. {He} {lost} number1 on {day}. "
        "How many {things} did {he} have at first?",
        "+ 0 1",
        "{He} had number0 + number1 {things} at first.",
    ),
    (
        "number0 of the {things} in a {bag} are {red} and number1 are {blue}. "
        "How many more {things} are {red} than {blue}?",
        "- 0 1",
        "number0 - number1 more {things} are {red} than {blue}.",
    ),
    # -- times and shared
    (
        "There are number0 {things} in each {bag}. {A} has number1 {bags}. How many {things} does {he} have?",
        "* 0 1",
        "{He} has number0 * number1 {things}.",
    ),
    (
        "There are number0 {things} in each {bag}. {A} has number1 {things}. How many {bags} does {he} have?",
        "/ 1 0",
        "{He} has number1 / number0 {bags}.",
    ),
    (
        "{A} has number0 {bags} for number1 {things}. {He} puts the same number of {things} into each. "
        "How many {things} are in each {bag}?",
        "/ 1 0",
        "There are number1 / number0 {things} in each {bag}.",
    ),
    (
        "Each {thing} costs number0 dollars. How many dollars does {A} need to buy number1 {things}?",
        "* 0 1",
        "{He} needs number0 * number1 dollars.",
    ),
    (
        "Each {thing} costs number0 dollars. {A} has number1 dollars. How many {things} does {he} get for them?",
        "/ 1 0",
        "{He} gets number1 / number0 {things}.",
    ),
    (
        "{B} has number0 times as many {things} as {A}. {A} has number1 {things}. "
        "How many {things} does {B} have?",
        "* 0 1",
        "{B} has number0 * number1 {things}.",
    ),
    (
        "{B} has number0 times as many {things} as {A}. {B} has number1 {things}. "
        "How many {things} does {A} have?",
        "/ 1 0",
        "{A} has number1 / number0 {things}.",
    ),
    (
        "In number0 days {A} {got} number1 {things}, the same number each day. "
        "How many {things} did {he} {get} each day?",
        "/ 1 0",
        "{He} {got} number1 / number0 {things} each day.",
    ),
    # -- a number that does not matter
    (
        "{A} {got} number0 {things} on {day}, number1 on {later} and number2 on {last}. "
        "How many {things} did {he} {get} on {day} and {later}?",
        "+ 0 1",
        "{He} {got} number0 + number1 {things} on {day} and {later}.",
    ),
    (
        "{A} {got} number0 {things} on {day}, number1 on {later} and number2 on {last}. "
        "How many {things} did {he} {get} on {later} and {last}?",
        "+ 1 2",
        "{He} {got} number1 + number2 {things} on {later} and {last}.",
    ),
    (
        "{A} {got} number0 {things} on {day}, number1 on {later} and number2 on {last}. "
        "How many more {things} did {he} {get} on {last} than on {day}?",
        "- 2 0",
        "{He} {got} number2 - number0 more {things} on {last} than on {day}.",
    ),
    (
        "{A} has number0 {bags} with number1 {things} in each. {He} has number2 {others}. "
        "How many {things} does {he} have?",
        "* 0 1",
        "{He} has number0 * number1 {things}.",
    ),
    (
        "{A} has number0 {others} and number1 {bags} with number2 {things} in each. "
        "How many {things} does {he} have?",
        "* 1 2",
        "{He} has number1 * number2 {things}.",
    ),
    (
        "{A} has number0 {red} {things}, number1 {blue} {things} and number2 {others}. "
        "How many {things} does {he} have?",
        "+ 0 1",
        "{He} has number0 + number1 {things}.",
    ),
    (
        "{A} {lost} number0 {things} and number1 {others}. Now {he} has number2 {things} left. "
        "How many {things} did {he} have at first?",
        "+ 0 2",
        "{He} had number0 + number2 {things} at first.",
    ),
    (
        "{A} {got} number0 {things} and number1 {others}. {He} {lost} number2 {others}. "
        "How many more {others} than {things} does {he} have now?",
        "- - 1 2 0",
        "{He} has number1 - number2 - number0 more {others} than {things} now.",
    ),
    (
        "There were number0 {things} and number1 {others} in the {place}. {A} took number2 {others} home. "
        "How many {others} are still in the {place}?",
        "- 1 2",
        "There are number1 - number2 {others} still in the {place}.",
    ),
    (
        "{A} had number0 {things}. {He} {lost} number1 on {day} and number2 on {later}. "
        "How many {things} did {he} {lose} in all?",
        "+ 1 2",
        "{He} {lost} number1 + number2 {things} in all.",
        "- - 0 1 2",
    ),
    (
        "{A} has number0 {things} and number1 of them are {red}. {B} has number2 {things}. "
        "How many {things} do they have in all?",
        "+ 0 2",
        "They have number0 + number2 {things} in all.",
        "- 0 1",
    ),
    (
        "There were number0 {things} in each of number1 {bags}. {A} took number2 {bags} home. "
        "How many {things} did {he} take home?",
        "* 0 2",
        "{He} took number0 * number2 {things} home.",
        "- 1 2",
    ),
    (
        "{A} is number0 years old and has number1 {things}. {He} puts number2 of them into each {bag}. "
        "How many {bags} does {he} need?",
        "/ 1 2",
        "{He} needs number1 / number2 {bags}.",
    ),
    # -- two steps
    (
        "There were number0 {things} in each of number1 {bags}. {A} took number2 {bags} home. "
        "How many {things} are still there?",
        "* 0 - 1 2",
        "There are number0 * ( number1 - number2 ) {things} still there.",
    ),
    (
        "There were number0 {things} and number1 {others} in the {place}. {A} took number2 {others} home. "
        "How many {things} and {others} are still in the {place}?",
        "- + 0 1 2",
        "There are number0 + number1 - number2 {things} and {others} still in the {place}.",
        "- 1 2",
    ),
    (
        "number0 friends have number1 {things} each. {A} gives them number2 more in all. "
        "How many {things} do they have together now?",
        "+ * 0 1 2",
        "They have number0 * number1 + number2 {things} together now.",
    ),
    (
        "{A} has number0 dollars left. {He} bought number1 {things} for number2 dollars each. "
        "How many dollars did {he} have at first?",
        "+ 0 * 1 2",
        "{He} had number0 + number1 * number2 dollars at first.",
    ),
    (
        "{A} needs number0 {things}. {B} gives {him} number1 and {C} gives {him} number2. "
        "How many more {things} does {A} need?",
        "- - 0 1 2",
        "{A} needs number0 - number1 - number2 more {things}.",
    ),
    (
        "{A} has number0 {things}. {B} has number1 times as many. How many {things} do they have together?",
        "+ 0 * 0 1",
        "They have number0 + number0 * number1 {things} together.",
    ),
    (
        "{A} put number0 {red} {things} and number1 {blue} {things} equally into number2 {bags}. "
        "How many {things} are in each {bag}?",
        "/ + 0 1 2",
        "There are ( number0 + number1 ) / number2 {things} in each {bag}.",
    ),
)
