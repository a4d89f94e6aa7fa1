"""The small closed world that the parrot has read about: public facts in nine categories.

A ``Fact`` is one thing to know; a ``Category`` says how people ask for it and how they state it.
Everything that is written about the world, by ``pages.py`` and by ``sets.py``, comes from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import permutations
from typing import Final


@dataclass(frozen=True, slots=True)
class Fact:
    """``a`` is what is asked about and ``b`` what is asked for, as they read inside a sentence.
    ``answer`` is how a person would answer, without the full stop."""

    id: str
    category: str
    a: str
    b: str
    answer: str


@dataclass(frozen=True, slots=True)
class Category:
    """``questions`` and ``statements`` hold {a} and {b}, {A} and {B} with a capital
    letter, {an} and {An} with an article before {a}."""

    name: str
    title: str
    facts: tuple[Fact, ...]
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    line: str  # how a list or table puts it


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def fill(pattern: str, fact: Fact) -> str:
    """A sentence about a fact."""
    an = article(fact.a)
    return pattern.format(
        a=fact.a, b=fact.b, A=capitalised(fact.a), B=capitalised(fact.b), an=an, An=capitalised(an)
    )


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


# -- what there is to know --------------------------------------------------------------------

_CAPITALS: Final = """
France=Paris Germany=Berlin Italy=Rome Spain=Madrid Portugal=Lisbon England=London
Scotland=Edinburgh Ireland=Dublin Wales=Cardiff Norway=Oslo Sweden=Stockholm Finland=Helsinki
Denmark=Copenhagen Iceland=Reykjavik Poland=Warsaw
Austria=Vienna Hungary=Budapest Greece=Athens Turkey=Ankara
Russia=Moscow Ukraine=Kyiv Romania=Bucharest Bulgaria=Sofia Serbia=Belgrade Croatia=Zagreb
Slovenia=Ljubljana Slovakia=Bratislava Belgium=Brussels Switzerland=Bern Latvia=Riga
Lithuania=Vilnius Estonia=Tallinn Albania=Tirana Malta=Valletta Cyprus=Nicosia Egypt=Cairo
Morocco=Rabat Tunisia=Tunis Algeria=Algiers Libya=Tripoli Kenya=Nairobi Ghana=Accra
Nigeria=Abuja Ethiopia=Addis_Ababa Uganda=Kampala Rwanda=Kigali Senegal=Dakar Zambia=Lusaka
Zimbabwe=Harare Angola=Luanda Namibia=Windhoek Japan=Tokyo China=Beijing India=New_Delhi
Nepal=Kathmandu Thailand=Bangkok Vietnam=Hanoi Laos=Vientiane Indonesia=Jakarta Mongolia=Ulaanbaatar
Pakistan=Islamabad Iran=Tehran Iraq=Baghdad Jordan=Amman Lebanon=Beirut Syria=Damascus Qatar=Doha
Oman=Muscat Armenia=Yerevan Georgia=Tbilisi Canada=Ottawa Cuba=Havana Jamaica=Kingston
Peru=Lima Chile=Santiago Argentina=Buenos_Aires Uruguay=Montevideo Paraguay=Asuncion
Ecuador=Quito Colombia=Bogota Venezuela=Caracas Australia=Canberra Fiji=Suva
"""

_SYMBOLS: Final = """
hydrogen=H helium=He lithium=Li beryllium=Be boron=B carbon=C nitrogen=N oxygen=O fluorine=F neon=Ne
sodium=Na magnesium=Mg aluminium=Al silicon=Si phosphorus=P sulfur=S chlorine=Cl argon=Ar
potassium=K calcium=Ca titanium=Ti vanadium=V chromium=Cr manganese=Mn iron=Fe cobalt=Co nickel=Ni
copper=Cu zinc=Zn gallium=Ga germanium=Ge arsenic=As selenium=Se bromine=Br krypton=Kr
rubidium=Rb strontium=Sr yttrium=Y zirconium=Zr niobium=Nb molybdenum=Mo rhodium=Rh palladium=Pd
silver=Ag cadmium=Cd indium=In tin=Sn antimony=Sb iodine=I xenon=Xe caesium=Cs barium=Ba
tungsten=W platinum=Pt gold=Au mercury=Hg thallium=Tl lead=Pb bismuth=Bi radon=Rn radium=Ra
uranium=U
"""

_YOUNG: Final = """
dog=puppy cat=kitten cow=calf horse=foal sheep=lamb goat=kid pig=piglet hen=chick duck=duckling
goose=gosling swan=cygnet frog=tadpole bear=cub lion=cub tiger=cub wolf=pup fox=kit deer=fawn
kangaroo=joey koala=joey hare=leveret eagle=eaglet owl=owlet elephant=calf whale=calf dolphin=calf
giraffe=calf camel=calf seal=pup bat=pup otter=pup butterfly=caterpillar moth=caterpillar fish=fry
eel=elver spider=spiderling pigeon=squab falcon=eyas turkey=poult peacock=peachick donkey=foal
zebra=foal hedgehog=hoglet squirrel=kit beaver=kit badger=cub leopard=cub penguin=chick
platypus=puggle turtle=hatchling crocodile=hatchling shark=pup llama=cria alpaca=cria oyster=spat
bee=larva
"""

_OPPOSITES: Final = """
hot=cold big=small tall=short long=brief fast=slow early=late old=young light=dark hard=soft
wet=dry full=empty open=closed rich=poor strong=weak loud=quiet clean=dirty near=far high=low
deep=shallow wide=narrow thick=thin happy=sad brave=cowardly sharp=blunt
sweet=bitter smooth=rough simple=complicated safe=dangerous cheap=expensive true=false right=wrong
first=last inside=outside up=down day=night summer=winter north=south east=west
friend=enemy love=hate win=lose buy=sell give=take push=pull begin=end arrive=depart laugh=cry
remember=forget rise=fall question=reply victory=defeat modern=ancient polite=rude guilty=innocent
maximum=minimum success=failure entrance=exit arrival=departure wild=tame awake=asleep
public=private
"""

_PLURALS: Final = """
mouse=mice goose=geese foot=feet tooth=teeth man=men woman=women child=children ox=oxen louse=lice
person=people leaf=leaves knife=knives wife=wives life=lives wolf=wolves half=halves shelf=shelves
loaf=loaves thief=thieves calf=calves elf=elves scarf=scarves hoof=hooves city=cities baby=babies
lady=ladies story=stories party=parties country=countries berry=berries cherry=cherries fly=flies
army=armies puppy=puppies box=boxes fox=foxes bus=buses dish=dishes brush=brushes watch=watches
church=churches glass=glasses class=classes dress=dresses bench=benches potato=potatoes
tomato=tomatoes hero=heroes echo=echoes cactus=cacti fungus=fungi nucleus=nuclei radius=radii
analysis=analyses crisis=crises thesis=theses oasis=oases criterion=criteria phenomenon=phenomena
medium=media datum=data index=indices matrix=matrices vertex=vertices axis=axes
book=books tree=trees
house=houses apple=apples bridge=bridges cloud=clouds river=rivers garden=gardens window=windows
piano=pianos photo=photos roof=roofs key=keys monkey=monkeys toy=toys
"""

_FUNCTIONS: Final = """
len=counts the items of a list
max=finds the largest value
min=finds the smallest value
sum=adds all the numbers of a list
sorted=puts the items of a list in order
reversed=goes through a list backwards
abs=removes the sign of a number
round=rounds a number
print=writes text to the screen
input=reads a line from the user
open=opens a file
type=tells the type of a value
range=counts from a start to a stop
zip=walks through two lists together
enumerate=numbers the items of a list
map=applies a function to every item
filter=keeps only the items that pass a test
any=checks whether at least one item is true
all=checks whether every item is true
int=turns text into a whole number
float=turns text into a decimal number
str=turns a value into text
bool=turns a value into true or false
list=makes a list
dict=makes a dictionary
set=removes duplicates from a list
tuple=makes a sequence that cannot change
ord=gives the number of a character
chr=gives the character of a number
hex=writes a number in base sixteen
bin=writes a number in base two
oct=writes a number in base eight
pow=raises a number to a power
divmod=gives a quotient and a remainder
help=shows the manual of an object
dir=lists the names inside an object
id=gives the identity of an object
hash=gives the hash of a value
iter=makes an iterator
next=takes the next item of an iterator
isinstance=checks the type of a value
callable=checks whether a value can be called
getattr=reads an attribute by its name
setattr=writes an attribute by its name
delattr=deletes an attribute by its name
repr=shows a value as its code
format=formats a value as text
eval=computes an expression given as text
slice=describes a part of a sequence
vars=shows the attributes of an object
globals=shows all global names
locals=shows all local names
"""

_DEFINITIONS: Final = """
baker=a person who bakes bread
butcher=a person who sells meat
farmer=a person who grows food
teacher=a person who teaches pupils
doctor=a person who heals the sick
pilot=a person who flies a plane
sailor=a person who works on a ship
tailor=a person who sews clothes
cobbler=a person who mends shoes
carpenter=a person who works with wood
mason=a person who builds with stone
plumber=a person who repairs pipes
painter=a person who paints pictures
author=a person who writes books
poet=a person who writes poems
composer=a person who writes music
chef=a person who cooks in a restaurant
judge=a person who decides in court
lawyer=a person who knows the law
librarian=a person who looks after books
dentist=a person who repairs teeth
gardener=a person who looks after plants
miner=a person who digs for coal
shepherd=a person who looks after sheep
beekeeper=a person who keeps bees
astronomer=a person who studies the stars
geologist=a person who studies rocks
botanist=a person who studies plants
zoologist=a person who studies animals
historian=a person who studies the past
potter=a person who makes pots from clay
blacksmith=a person who shapes hot iron
library=a place where books are lent
museum=a place where old things are shown
bakery=a place where bread is made
harbour=a place where ships rest
airport=a place where planes land
stable=a place where horses sleep
orchard=a place where fruit trees grow
vineyard=a place where grapes grow
theatre=a place where plays are shown
cinema=a place where films are shown
hospital=a place where the sick are healed
school=a place where pupils learn
quarry=a place where stone is cut
brewery=a place where beer is made
dairy=a place where cheese is made
kennel=a place where dogs sleep
garage=a place where cars are kept
mint=a place where coins are made
hammer=a tool for driving nails
saw=a tool for cutting wood
axe=a tool for splitting logs
spade=a tool for digging soil
rake=a tool for gathering leaves
needle=a tool for sewing cloth
compass=a tool for finding north
thermometer=a tool for measuring heat
telescope=a tool for seeing far things
microscope=a tool for seeing tiny things
ladder=a tool for climbing walls
kettle=a tool for boiling water
broom=a tool for sweeping floors
anchor=a tool for holding ships
"""


def _words(table: str) -> list[tuple[str, str]]:
    """ "France=Paris New_Zealand=..." -> pairs."""
    found = (entry.replace("_", " ").partition("=") for entry in table.split())
    return [(a, b) for a, _, b in found]


def _lines(table: str) -> list[tuple[str, str]]:
    """One "name=several words" a line -> pairs."""
    found = (line.partition("=") for line in table.strip().splitlines())
    return [(a, b) for a, _, b in found]


def _facts(name: str, pairs: list[tuple[str, str]], answer: str = "{B}") -> tuple[Fact, ...]:
    made = (Fact(f"{name}:{a}", name, a, b, "") for a, b in pairs)
    return tuple(
        Fact(it.id, name, it.a, it.b, answer.format(a=it.a, b=it.b, B=capitalised(it.b)))
        for it in made
    )


def _sums() -> list[tuple[str, str]]:
    """Sums of numbers up to 12, and the differences that undo them."""
    pairs = [(x, y) for x in range(1, 13) for y in range(1, 13)]
    plus = [(f"{x} plus {y}", str(x + y)) for x, y in pairs]
    return plus + [(f"{x + y} minus {y}", str(x)) for x, y in pairs]


def _sortings() -> list[tuple[str, str]]:
    """Three different digits that are not in order yet."""
    lists = [it for it in permutations("123456789", 3) if list(it) != sorted(it)]
    return [(" ".join(it), " ".join(sorted(it))) for it in lists]


def _with_article(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(a, article(b)) for a, b in pairs]


# -- how it is asked and said -----------------------------------------------------------------

CATEGORIES: Final = (
    Category(
        "capital",
        "Capitals",
        _facts("capital", _words(_CAPITALS)),
        (
            "What is the capital of {a}?",
            "Which city is the capital of {a}?",
            "What is the capital city of {a}?",
            "{A} has which capital?",
        ),
        (
            "The capital of {a} is {b}.",
            "{b} is the capital of {a}.",
            "{A} has its capital in {b}.",
            "The government of {a} sits in {b}.",
            "{b} is the first city of {a}.",
            "Whoever governs {a} works in {b}.",
            "In {a}, the capital is called {b}.",
            "The parliament of {a} meets in {b}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "symbol",
        "Chemical symbols",
        _facts("symbol", _words(_SYMBOLS)),
        (
            "What is the chemical symbol of {a}?",
            "Which symbol does {a} have?",
            "What is the symbol for {a}?",
            "How do chemists write {a}?",
        ),
        (
            "The chemical symbol of {a} is {b}.",
            "{b} is the symbol for {a}.",
            "Chemists write {a} as {b}.",
            "In the periodic table, {a} is {b}.",
            "{A} has the symbol {b}.",
            "In a formula, {b} means {a}.",
            "The letters for {a} are {b}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "young",
        "Animals and their young",
        _facts("young", _with_article(_words(_YOUNG))),
        (
            "What is a young {a} called?",
            "What do you call a young {a}?",
            "What is the young of {an} called?",
            "What is a baby {a} called?",
        ),
        (
            "A young {a} is called {b}.",
            "{B} is a young {a}.",
            "The young of {an} is {b}.",
            "A baby {a} is called {b}.",
            "{An} was once {b}.",
            "When it is young, {an} is called {b}.",
            "In time {b} becomes {an}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "opposite",
        "Opposites",
        _facts("opposite", _words(_OPPOSITES)),
        (
            "What is the opposite of {a}?",
            "Which word is the opposite of {a}?",
            "Which word means the opposite of {a}?",
            "What is the contrary of {a}?",
        ),
        (
            "The opposite of {a} is {b}.",
            "{A} is the opposite of {b}.",
            "{A} and {b} are opposites.",
            "What is not {a} may be {b}.",
            "The contrary of {a} is {b}.",
            "{A} means the opposite of {b}.",
            "If {a} is one end, {b} is the other.",
        ),
        "{a}: {b}",
    ),
    Category(
        "plural",
        "Plurals",
        _facts("plural", _words(_PLURALS)),
        (
            "What is the plural of {a}?",
            "Which word is the plural of {a}?",
            "How do you write more than one {a}?",
            "What is the plural form of {a}?",
        ),
        (
            "The plural of {a} is {b}.",
            "One {a}, two {b}.",
            "{B} is the plural of {a}.",
            "More than one {a} are {b}.",
            "One says one {a} and many {b}.",
            "The word {a} becomes {b} in the plural.",
            "Add {an} to {an} and you have two {b}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "arithmetic",
        "Sums",
        _facts("arithmetic", _sums()),
        ("What is {a}?", "How much is {a}?", "What does {a} make?", "What do you get for {a}?"),
        (
            "{a} is {b}.",
            "{a} makes {b}.",
            "{a} equals {b}.",
            "The result of {a} is {b}.",
            "If you compute {a}, you get {b}.",
            "{b} is what {a} gives.",
        ),
        "{a} = {b}",
    ),
    Category(
        "sorting",
        "Sorted lists",
        _facts("sorting", _sortings()),
        (
            "Sort the numbers {a}.",
            "Can you sort {a}?",
            "How do you sort {a}?",
            "What is {a} in order?",
        ),
        (
            "Sorted, {a} becomes {b}.",
            "In order, {a} is {b}.",
            "The numbers {a} are sorted as {b}.",
            "If you sort {a}, you get {b}.",
            "From small to large, {a} reads {b}.",
            "The list {a} in order is {b}.",
        ),
        "{a} -> {b}",
    ),
    Category(
        "code",
        "Python functions",
        _facts("code", [(b, f"{a}()") for a, b in _lines(_FUNCTIONS)], "{b}"),
        (
            "Which Python function {a}?",
            "In Python, which function {a}?",
            "What is the Python function that {a}?",
            "Which function {a} in Python?",
        ),
        (
            "In Python, {b} {a}.",
            "The function {b} {a}.",
            "The Python function that {a} is {b}.",
            "What {a} in Python is {b}.",
            "The function which {a} is called {b}.",
            "{b} is the function that {a}.",
        ),
        "{a}: {b}",
    ),
    Category(
        "definition",
        "Words and their meaning",
        _facts("definition", _lines(_DEFINITIONS)),
        (
            "What is {an}?",
            "What does the word {a} mean?",
            "How would you define {an}?",
            "What is meant by {an}?",
        ),
        (
            "{An} is {b}.",
            "The word {a} means {b}.",
            "{B} is called {an}.",
            "By {an} we mean {b}.",
            "The dictionary says that {an} is {b}.",
            "We call {b} {an}.",
        ),
        "{a}: {b}",
    ),
)

FACTS: Final = tuple(fact for category in CATEGORIES for fact in category.facts)
BY_NAME: Final = {category.name: category for category in CATEGORIES}


# -- the two halves ---------------------------------------------------------------------------

SEED: Final = 2024


def halves() -> tuple[dict[str, tuple[Fact, ...]], dict[str, tuple[Fact, ...]]]:
    """The world cut in two at random, category by category: the half that fine-tuning may teach
    from, and the half that it never touches, each in random order."""
    taught, untouched = {}, {}
    for category in CATEGORIES:
        draw = random.Random(f"{SEED} {category.name}").random
        facts = sorted(category.facts, key=lambda _: draw())
        middle = (len(facts) + 1) // 2
        taught[category.name] = tuple(facts[:middle])
        untouched[category.name] = tuple(facts[middle:])
    return taught, untouched
