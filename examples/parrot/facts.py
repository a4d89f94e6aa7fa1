"""What there is to know in the parrot's world, as tables: pairs of what is asked about and what is
asked for. How it is said and asked is in ``world.py``."""

from __future__ import annotations

from itertools import permutations
from typing import Final

Pairs = list[tuple[str, str]]


def _words(table: str) -> Pairs:
    """ "France=Paris New_Zealand=..." -> pairs."""
    found = (entry.replace("_", " ").partition("=") for entry in table.split())
    return [(a, b) for a, _, b in found]


def _lines(table: str) -> Pairs:
    """One "name=several words" a line -> pairs."""
    found = (line.partition("=") for line in table.strip().splitlines())
    return [(a, b) for a, _, b in found]


CAPITALS: Final = _words("""
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
""")

SYMBOLS: Final = _words("""
hydrogen=H helium=He lithium=Li beryllium=Be boron=B carbon=C nitrogen=N oxygen=O fluorine=F neon=Ne
sodium=Na magnesium=Mg aluminium=Al silicon=Si phosphorus=P sulfur=S chlorine=Cl argon=Ar
potassium=K calcium=Ca titanium=Ti vanadium=V chromium=Cr manganese=Mn iron=Fe cobalt=Co nickel=Ni
copper=Cu zinc=Zn gallium=Ga germanium=Ge arsenic=As selenium=Se bromine=Br krypton=Kr
rubidium=Rb strontium=Sr yttrium=Y zirconium=Zr niobium=Nb molybdenum=Mo rhodium=Rh palladium=Pd
silver=Ag cadmium=Cd indium=In tin=Sn antimony=Sb iodine=I xenon=Xe caesium=Cs barium=Ba
tungsten=W platinum=Pt gold=Au mercury=Hg thallium=Tl lead=Pb bismuth=Bi radon=Rn radium=Ra
uranium=U
""")

YOUNG: Final = _words("""
dog=puppy cat=kitten cow=calf horse=foal sheep=lamb goat=kid pig=piglet duck=duckling
goose=gosling swan=cygnet frog=tadpole bear=cub lion=cub tiger=cub wolf=pup fox=kit deer=fawn
kangaroo=joey koala=joey hare=leveret eagle=eaglet owl=owlet elephant=calf whale=calf dolphin=calf
giraffe=calf camel=calf seal=pup bat=pup otter=pup butterfly=caterpillar moth=caterpillar
eel=elver spider=spiderling pigeon=squab falcon=eyas turkey=poult peacock=peachick donkey=foal
zebra=foal hedgehog=hoglet squirrel=kit beaver=kit badger=cub leopard=cub penguin=chick
platypus=puggle turtle=hatchling crocodile=hatchling shark=pup llama=cria alpaca=cria
bee=larva
""")

OPPOSITES: Final = _words("""
hot=cold big=small tall=short long=short fast=slow early=late young=old dark=light hard=soft
wet=dry full=empty open=closed rich=poor strong=weak loud=quiet clean=dirty near=far high=low
deep=shallow wide=narrow thick=thin happy=sad brave=cowardly sharp=blunt
sweet=sour smooth=rough simple=complex safe=dangerous cheap=expensive true=false
first=last inside=outside up=down day=night summer=winter north=south east=west
friend=enemy love=hate win=lose buy=sell give=take push=pull begin=end arrive=depart laugh=cry
remember=forget rise=fall question=answer victory=defeat modern=ancient polite=rude guilty=innocent
maximum=minimum success=failure entrance=exit arrival=departure wild=tame awake=asleep
public=private
""")

PLURALS: Final = _words("""
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
""")

FUNCTIONS: Final = _lines("""
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
""")

DEFINITIONS: Final = _lines("""
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
""")


def sums() -> Pairs:
    """Sums of numbers up to 12, and the differences that undo them."""
    pairs = [(x, y) for x in range(1, 13) for y in range(1, 13)]
    plus = [(f"{x} plus {y}", str(x + y)) for x, y in pairs]
    return plus + [(f"{x + y} minus {y}", str(x)) for x, y in pairs]


def sortings() -> Pairs:
    """Three different digits that are not in order yet."""
    lists = [it for it in permutations("123456789", 3) if list(it) != sorted(it)]
    return [(" ".join(it), " ".join(sorted(it))) for it in lists]
